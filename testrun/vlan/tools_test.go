package vlan

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startTool starts a command that ends with the test.
func startTool(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if stderr.Len() > 0 {
			t.Logf("%s: %s", cmd.Path, &stderr)
		}
	})
}

// vde_plug copies between the network and its standard input and output, where
// each frame has its length in front, two bytes, big-endian.
func TestVDEPlug(t *testing.T) {
	needTool(t, "vde_plug")
	v := startVLAN(t)
	ours := join(t, v)
	plug := exec.Command("vde_plug", "vde://"+v.Dir())
	stdin, err := plug.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := plug.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	startTool(t, plug)

	frame := newFrame(200, "from vde_plug")
	if _, err := stdin.Write(append(binary.BigEndian.AppendUint16(nil, 200), frame...)); err != nil {
		t.Fatal(err)
	}
	if got := ours.receive(t); !bytes.Equal(got, frame) {
		t.Errorf("received %q", got)
	}
	frame = newFrame(1514, "to vde_plug")
	ours.send(t, frame)
	// Killing it bounds the reading.
	defer time.AfterFunc(patience, func() { _ = plug.Process.Kill() }).Stop()
	got := make([]byte, 2+len(frame))
	if _, err := io.ReadFull(stdout, got); err != nil {
		t.Fatal(err)
	}
	if binary.BigEndian.Uint16(got) != 1514 || !bytes.Equal(got[2:], frame) {
		t.Errorf("vde_plug received %q", got)
	}
	ports := v.Stats().Ports
	if len(ports) != 2 || !strings.HasPrefix(ports[1].Client, "vdeplug: user=") {
		t.Errorf("got %+v", ports)
	}
}

// One QEMU boots from its network card: its ROM asks for an address and loads a
// file by TFTP. The other QEMU is the network's DHCP and TFTP server. All of it
// goes through the VLAN, both ways, without a guest.
func TestTwoQEMUs(t *testing.T) {
	const qemu, rom = "qemu-system-x86_64", "efi-e1000.rom"
	needTool(t, qemu)
	found := false
	for _, dir := range []string{"/usr/lib/ipxe/qemu", "/usr/share/qemu"} {
		_, err := os.Stat(filepath.Join(dir, rom))
		found = found || err == nil
	}
	if !found && os.Getenv("CI") == "" {
		t.Skip(rom + " is not installed")
	}
	v := startVLAN(t)
	witness := join(t, v)
	tftp := t.TempDir()
	const marker = "this came over the VLAN"
	script := "#!ipxe\n# " + strings.Repeat("x", 3000) + marker + "\n"
	if err := os.WriteFile(filepath.Join(tftp, "boot"), []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	startTool(t, exec.Command(qemu, "-machine", "none", "-nodefaults", "-display", "none",
		"-netdev", "user,id=user,restrict=on,tftp="+tftp+",bootfile=boot",
		"-netdev", "vde,id=vlan1,sock="+v.Dir(),
		"-netdev", "hubport,id=a,hubid=0,netdev=user", "-netdev", "hubport,id=b,hubid=0,netdev=vlan1"))
	startTool(t, exec.Command(qemu, "-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none",
		"-netdev", "vde,id=vlan1,sock="+v.Dir(), "-device", "e1000,netdev=vlan1,romfile="+rom+",bootindex=0"))

	start := time.Now()
	deadline := start.Add(2 * patience)
	for frames := 1; ; frames++ {
		if time.Now().After(deadline) {
			t.Fatal("the file did not pass")
		}
		if bytes.Contains(witness.receive(t), []byte(marker)) {
			t.Logf("the end of the file passed after %v, in frame %d", time.Since(start), frames)
			break
		}
	}
	for _, p := range v.Stats().Ports[1:] {
		if !strings.HasPrefix(p.Client, "QEMU") || p.FramesIn == 0 || p.FramesOut == 0 {
			t.Errorf("got %+v", p)
		}
		t.Logf("%+v", p)
	}
}
