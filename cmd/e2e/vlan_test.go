package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
)

// siblings returns the configuration of a test whose machines have the given
// names and are all like that of vm-help, but for the last byte of their MAC
// address. Their IP addresses are for the script to set.
func siblings(t *testing.T, names ...string) config {
	t.Helper()
	c := configOf(t, "vm-help")
	original, err := os.ReadFile(c["vms"].(map[string]any)["machine"].(map[string]any)["start_script"].(string))
	if err != nil {
		t.Fatal(err)
	}
	const mac = "mac=52:54:00:12:01:01"
	if !bytes.Contains(original, []byte(mac)) {
		t.Fatalf("no %s in\n%s", mac, original)
	}
	vms := map[string]any{}
	for i, name := range names {
		text := strings.ReplaceAll(string(original), mac, fmt.Sprintf("mac=52:54:00:12:01:%02x", i+1))
		vms[name] = map[string]any{"name": name, "start_script": startScript(t, name, text)}
	}
	c["vms"] = vms
	return c
}

// startScript writes a start script for a machine.
func startScript(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "run-"+name+"-vm")
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// connected is a script that boots siblings and gives them addresses.
const connected = `
import re

start_all()
for number, machine in enumerate(machines, 1):
    machine.succeed(f"ip addr flush dev eth1 && ip addr add 192.168.1.{number}/24 dev eth1")


def ping(sender, number, count=1):
    status, output = sender.execute(f"ping -c {count} -W 5 192.168.1.{number}")
    return output if status == 0 else ""


def fastest(output):
    """In milliseconds."""
    return float(re.search(r"= ([0-9.]+)/", output)[1])


`

func TestFaultsBetweenGuests(t *testing.T) {
	r := start(t, siblings(t, "a", "b", "c"), connected+`
assert ping(a, 2) and ping(a, 3) and ping(b, 3)

with subtest("partition"):
    vlan1.partition([a, b], [c])
    assert ping(a, 2)
    assert not ping(a, 3) and not ping(c, 2)
    vlan1.partition([b, c])  # and a is alone
    assert ping(b, 3)
    assert not ping(a, 2)
    vlan1.heal()
    assert ping(a, 2) and ping(a, 3)

with subtest("loss"):
    vlan1.set_loss(1, machine=c)
    assert ping(a, 2)
    assert not ping(a, 3) and not ping(c, 1)
    vlan1.set_loss(1)
    assert not ping(a, 2)
    vlan1.heal()
    assert ping(a, 2) and ping(a, 3)

with subtest("delay"):
    vlan1.set_delay(1, machine=b)  # there and back
    slow, other = ping(a, 2, count=3), ping(a, 3, count=3)
    assert fastest(slow) >= 2000, slow
    assert fastest(other) < 2000, other
    vlan1.set_delay(1, jitter=0.1, machine=b)
    slow = ping(a, 2, count=3)
    assert fastest(slow) >= 1800, slow
    vlan1.heal()
    assert fastest(ping(a, 2, count=3)) < 1800

with subtest("stats"):
    for port in vlan1.stats():
        print("STATS", port)
        assert port["from_frames"] > 10 and port["to_bytes"] > 600, port
    assert [port["machine"] for port in vlan1.stats()] == ["a", "b", "c"]
    assert vlan1.stats()[2]["dropped"] > 0

with subtest("mistakes"):
    for wrong in (
        lambda: vlan1.set_loss(2),
        lambda: vlan1.set_delay(-1),
        lambda: vlan1.set_loss(0.5, machine="nobody"),
        lambda: vlan1.partition([a, "nobody"]),
        lambda: vlan1.partition([a], [a]),
    ):
        try:
            wrong()
        except Exception as e:
            print("REFUSED", type(e).__name__, e)
        else:
            raise Exception("not refused")
    assert ping(a, 2)
`, "--pcap", "captures")
	code, log := r.end(3 * booting)
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		"the faults of VLANs are repeated by VM_PREBUILD_SEED=",
		"VLAN 1: divided into [a, b] [c]",
		"REFUSED RequestedAssertionFailed vlan1.set_loss: loss is to be a number from 0 to 1",
		`REFUSED RequestedAssertionFailed vlan_set_loss: there is no machine named "nobody"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q", want)
		}
	}
	file := filepath.Join(r.out, "captures", "vlan1.pcapng")
	read := tcpdump(t, file)
	for _, want := range []string{
		"192.168.1.1 > 192.168.1.2: ICMP echo request", "192.168.1.2 > 192.168.1.1: ICMP echo reply", "who-has 192.168.1.3",
	} {
		if !strings.Contains(read, want) {
			t.Errorf("tcpdump finds no %q", want)
		}
	}
	if got := interfaces(t, file); !regexp.MustCompile(`^vlan1( [abc]){3}$`).MatchString(got) {
		t.Errorf("interfaces of the capture: %s", got)
	}
	r.nothingLeft(time.Second)
}

func TestCaptureOfAKilledDriver(t *testing.T) {
	r := start(t, siblings(t, "a", "b"), connected+`
assert ping(a, 2)
vlan1.set_loss(1)
print("READY", flush=True)
a.execute("ping -c 600 192.168.1.2")
`, "--pcap", ".")
	r.await("^READY$", booting)
	time.Sleep(time.Second) // what is promised to be in the file
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
	read := tcpdump(t, filepath.Join(r.out, "vlan1.pcapng"))
	if n := strings.Count(read, "192.168.1.1 > 192.168.1.2: ICMP echo request"); n < 2 {
		t.Errorf("%d requests in\n%s", n, read)
	}
	r.nothingLeft(time.Second)
}

// tcpdump returns what tcpdump reads in a file.
func tcpdump(t *testing.T, file string) string {
	t.Helper()
	if _, err := exec.LookPath("tcpdump"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	out, err := command(t, ".", "tcpdump", "-n", "-r", file)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return out
}

// interfaces returns the names of the interfaces of a capture.
func interfaces(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, _, err = r.ReadPacketData()
	}
	var names []string
	for i := range r.NInterfaces() {
		x, err := r.Interface(i)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, x.Name)
	}
	return strings.Join(names, " ")
}
