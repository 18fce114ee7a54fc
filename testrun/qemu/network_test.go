package qemu

import (
	"slices"
	"testing"
)

func TestVLANCards(t *testing.T) {
	// What QEMU 7.2 answers for a machine with a user network and two VLANs.
	const network = "virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r\n" +
		" \\ user.0: index=0,type=user,net=10.0.2.0,restrict=off\r\n" +
		"virtio-net-pci.1: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:01:01\r\n" +
		" \\ vlan1: index=0,type=vde,sock=/tmp/vde1.ctl,fd=12\r\n" +
		"virtio-net-pci.2: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:02:01\r\n" +
		" \\ vlan2: index=0,type=vde,sock=/tmp/vde2.ctl,fd=13\r\n"
	want := []string{"virtio-net-pci.1", "virtio-net-pci.2"}
	if got := vlanCards(network); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := vlanCards("nonsense\n \\ orphan: type=vde\n"); len(got) != 1 {
		t.Errorf("%q", got)
	}
}
