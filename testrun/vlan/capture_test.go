package vlan

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
)

// echo is an ICMP echo request from 192.168.1.1 to 192.168.1.2.
func echo(sequence byte) []byte {
	packet := []byte("\xff\xff\xff\xff\xff\xff\x52\x54\x00\x12\x01\x01\x08\x00" +
		"\x45\x00\x00\x1c\x00\x00\x00\x00\x40\x01\xf7\x8d\xc0\xa8\x01\x01\xc0\xa8\x01\x02" +
		"\x08\x00\xf7\xff\x00\x00\x00\x00")
	packet[len(packet)-1] = sequence
	packet[37] -= sequence // of the checksum
	return append(packet, make([]byte, 60-len(packet))...)
}

// packet is one of a capture.
type packet struct {
	from string // the interface
	at   time.Time
	data []byte
}

func readCapture(t *testing.T, file string) ([]string, []packet) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(data), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	var packets []packet
	for {
		data, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		i, err := r.Interface(info.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, packet{i.Name, info.Timestamp, data})
	}
	var names []string
	for i := range r.NInterfaces() {
		x, err := r.Interface(i)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, x.Name)
	}
	return names, packets
}

// tcpdump returns what tcpdump reads in a file, a line each.
func tcpdump(t *testing.T, file string, args ...string) []string {
	t.Helper()
	needTool(t, "tcpdump")
	cmd := exec.Command("tcpdump", append([]string{"-n", "-r", file}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestCapture(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vlan1.pcapng")
	begin := time.Now()
	v, c := startMachines(t, Options{Capture: file}, "server", "client")
	const n = 20
	for i := range n {
		c[i%2].send(t, echo(byte(i)))
		c[1-i%2].receive(t)
	}
	stranger := join(t, v)
	stranger.send(t, newFrame(1514, "no machine"))
	c[0].receive(t)
	closeSwitch(t, v)
	end := time.Now()

	names, packets := readCapture(t, file)
	if got := strings.Join(names, " "); got != "vlan1 server client" {
		t.Errorf("interfaces %s", got)
	}
	if len(packets) != n+1 {
		t.Fatalf("%d packets", len(packets))
	}
	for i, p := range packets {
		from, data := "vlan1", newFrame(1514, "no machine")
		if i < n {
			from, data = []string{"server", "client"}[i%2], echo(byte(i))
		}
		if p.from != from || !bytes.Equal(p.data, data) {
			t.Errorf("packet %d of %s: %q", i, p.from, p.data)
		}
		if p.at.Before(begin.Round(0)) || p.at.After(end.Round(0)) {
			t.Errorf("packet %d is of %v", i, p.at)
		}
		begin = p.at
	}

	lines := tcpdump(t, file, "-v", "icmp")
	text := strings.Join(lines, "\n")
	if got := strings.Count(text, "192.168.1.1 > 192.168.1.2: ICMP echo request, id 0, seq "); got != n || strings.Contains(text, "wrong") {
		t.Errorf("tcpdump reads\n%s", text)
	}
}

func TestCaptureOfNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vlan1.pcapng")
	v, _ := startMachines(t, Options{Capture: file})
	closeSwitch(t, v)
	if names, packets := readCapture(t, file); len(packets) > 0 || len(names) != 1 {
		t.Errorf("interfaces %v, packets %v", names, packets)
	}
	if got := tcpdump(t, file); got[0] != "" {
		t.Errorf("tcpdump reads %v", got)
	}
}

// What a driver that is killed leaves has been read while it still wrote.
func TestCaptureIsReadableAtAnyTime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vlan1.pcapng")
	_, c := startMachines(t, Options{Capture: file}, "a", "b")
	seen := 0
	for i := 0; seen < 100; i++ {
		c[0].send(t, numbered(i))
		c[1].receive(t)
		if i%1000 == 0 {
			_, packets := readCapture(t, file)
			if len(packets) < seen {
				t.Fatalf("%d packets, after %d", len(packets), seen)
			}
			seen = len(packets)
			time.Sleep(captureEvery / 2)
		}
	}
}

func TestCaptureThatCannotBeWritten(t *testing.T) {
	if _, err := Start(1, shortDir(t), Options{Capture: "/nonexistent/vlan1.pcapng"}); err == nil || !strings.Contains(err.Error(), "/nonexistent/vlan1.pcapng: no such file") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	if v, err := Start(1, shortDir(t), Options{Capture: "/dev/full"}); err == nil {
		t.Errorf("got no error: %v", v.Close())
	}
}

// A disk that becomes full costs the capture and not the network.
func TestCaptureOnAFullDisk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vlan1.pcapng")
	v, err := Start(1, shortDir(t), Options{Capture: file})
	if err != nil {
		t.Fatal(err)
	}
	c := []*client{join(t, v), join(t, v)}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	v.capture.mu.Lock() // the writer has nothing to write meanwhile
	v.capture.file.Close()
	v.capture.file = full
	v.capture.mu.Unlock()
	for i := range 100 {
		c[0].send(t, numbered(i))
		if got := c[1].number(t); got != i {
			t.Fatalf("received frame %d", got)
		}
	}
	if err := v.Close(); err == nil || !strings.Contains(err.Error(), file+" is not complete: ") || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v", err)
	}
}

// A writer that cannot keep up costs frames of the capture, which are counted.
func TestCaptureThatIsTooSlow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "capture")
	c, err := startCapture(file, "vlan1")
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.queue.data = make([]byte, captureQueue-100)
	c.queue.frames = []captured{{time.Now(), "a", captureQueue - 100}}
	c.mu.Unlock()
	p := &port{machine: "a"}
	c.add(p, make([]byte, 101))
	if got := c.lost(); got != 1 {
		t.Errorf("%d frames are missing", got)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
	r, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ng, err := pcapgo.NewNgReader(r, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, _, err = ng.ReadPacketData()
	}
	hub, err := ng.Interface(0)
	if err != nil || hub.Statistics.PacketsDropped != 1 {
		t.Errorf("the file says %+v, %v", hub.Statistics, err)
	}
}
