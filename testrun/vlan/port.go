package vlan

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	minFrame = 14       // an Ethernet header
	maxFrame = 64 << 10 // vde_switch cuts frames off at 1518 bytes
)

// port is the hub's side of one client.
type port struct {
	number int
	socket string // path of data
	client string
	// machine is the name of the machine that the client belongs to, empty if
	// it belongs to none.
	machine string
	data    *net.UnixConn // connected to the client's datagram socket
	raw     syscall.RawConn

	framesIn, bytesIn, invalid   atomic.Uint64
	framesOut, bytesOut, dropped atomic.Uint64
}

// PortStats are the counters of one port. In is what the client sent, out what
// it was sent.
type PortStats struct {
	Port      int
	Client    string // how the client describes itself: "QEMU user=root pid=123"
	Machine   string // that the client belongs to; may be empty
	FramesIn  uint64
	BytesIn   uint64
	Invalid   uint64 // frames in that were not passed on: under 14 bytes, over 64 KiB
	FramesOut uint64
	BytesOut  uint64
	Dropped   uint64 // frames that were not sent out: faults, or the client does not keep up
}

// openPort creates the datagram socket named socket and connects it to the
// client's. It does so before the client gets its answer, because clients remove
// the name of their socket as soon as they have it.
func openPort(number int, socket, machine string, req request) (*port, error) {
	data, err := net.DialUnix("unixgram",
		&net.UnixAddr{Name: socket, Net: "unixgram"},
		&net.UnixAddr{Name: req.socket, Net: "unixgram"})
	if err != nil {
		_ = os.Remove(socket) // it is bound before it is connected
		return nil, fmt.Errorf("open port %d for %q: %w", number, req.description, err)
	}
	raw, err := data.SyscallConn()
	if err != nil {
		_ = data.Close()
		_ = os.Remove(socket)
		return nil, fmt.Errorf("open port %d for %q: %w", number, req.description, err)
	}
	return &port{number: number, socket: socket, client: req.description, machine: machine, data: data, raw: raw}, nil
}

// name names the port in what people read and in what must be the same in the
// next run.
func (p *port) name() string {
	if p.machine != "" {
		return p.machine
	}
	return fmt.Sprintf("port %d", p.number)
}

func (p *port) close() {
	_ = p.data.Close()
	_ = os.Remove(p.socket)
}

// receive waits for the next frame from the client. buf has room for more than
// maxFrame, so that longer ones are noticed.
func (p *port) receive(buf []byte) ([]byte, error) {
	for {
		n, err := p.data.Read(buf)
		if err != nil {
			return nil, err
		}
		if n < minFrame || n > maxFrame {
			p.invalid.Add(1)
			continue
		}
		p.framesIn.Add(1)
		p.bytesIn.Add(uint64(n))
		return buf[:n], nil
	}
}

// send passes a frame to the client, or drops it when that would block.
func (p *port) send(frame []byte) {
	if !p.trySend(frame) {
		p.dropped.Add(1)
	}
}

// trySend reports whether the client has room for a frame, and gets it then.
// UnixConn.Write would wait until the client reads, and one stuck guest would
// stall the network.
func (p *port) trySend(frame []byte) bool {
	var sendErr error
	err := p.raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendto(int(fd), frame, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		return true
	})
	if err != nil || sendErr != nil {
		return false
	}
	p.framesOut.Add(1)
	p.bytesOut.Add(uint64(len(frame)))
	return true
}

func (p *port) stats() PortStats {
	return PortStats{
		Port:      p.number,
		Client:    p.client,
		Machine:   p.machine,
		FramesIn:  p.framesIn.Load(),
		BytesIn:   p.bytesIn.Load(),
		Invalid:   p.invalid.Load(),
		FramesOut: p.framesOut.Load(),
		BytesOut:  p.bytesOut.Load(),
		Dropped:   p.dropped.Load(),
	}
}
