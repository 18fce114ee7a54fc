// Package vlan provides the virtual networks that connect a test's machines.
//
// [Start] runs one inside this process: a hub that speaks the protocol of
// vde_switch, so that `qemu -netdev vde`, vde_plug, vde_plug2tap and other users
// of libvdeplug connect to it as they are. [StartProcess] runs vde_switch
// itself.
//
// A client connects to the stream socket <dir>/ctl and sends a request (see
// request.go) that names a datagram socket of its own. The switch answers with
// the address of another datagram socket. From then on each datagram is one
// Ethernet frame, and the port exists as long as the stream does. The protocol
// has no specification but vde2's sources: src/vde_switch/datasock.c and
// src/lib/libvdeplug.c.
package vlan

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Switch is a running virtual network.
type Switch interface {
	// Number is the number by which tests know the network.
	Number() int
	// Dir is the absolute path of the directory that clients are given, in
	// QEMU_VDE_SOCKET_<number>.
	Dir() string
	// Close disconnects all clients and removes the directory.
	Close() error
}

const (
	// maxPorts bounds what a client gone wild can make us open.
	maxPorts = 256
	// requestTimeout is how long a new client may take to say what it wants.
	requestTimeout = 5 * time.Second
)

// VLAN is a hub in this process: what one client sends goes to all others. It
// does not look at addresses or VLAN tags, so 802.1Q frames pass, and frames may
// have up to 64 KiB. A frame is dropped for a client that does not keep up,
// never held back.
type VLAN struct {
	number   int
	dir      string
	owner    func(pid int) string
	capture  *capture // nil if there is none
	faults   *faults
	listener *net.UnixListener
	wg       sync.WaitGroup
	done     chan struct{} // closed by Close
	close    func() error

	mu      sync.RWMutex
	closed  bool
	clients map[*net.UnixConn]struct{}
	ports   []*port            // by number
	left    map[string]Traffic // of ports that are gone, by machine
	serial  int                // of the last port; makes socket names unique
	refused int
	refusal error
}

var _ Switch = (*VLAN)(nil)

// Options are what a hub can do beside connecting its clients.
type Options struct {
	// Owner names the machine that the process pid belongs to, "" if it belongs
	// to none. It is called once for each client, in any goroutine. Nil stands
	// for one that knows no machine.
	Owner func(pid int) string
	// Capture is the file that all frames are written to, in the format pcapng;
	// "" for none. It must not be there yet, or is replaced.
	Capture string
	// Seed decides which frames are lost and how long each is delayed: with the
	// same one the nth frame from one machine to another meets the same fate.
	Seed uint64
}

// Start creates the directory dir and serves a hub in it. A directory that a
// killed process left behind is taken over; one that is being served is an
// error. Names of sockets are short: dir may have 92 bytes at most.
func Start(number int, dir string, o Options) (*VLAN, error) {
	v, err := start(number, dir, o)
	if err != nil {
		return nil, fmt.Errorf("start VLAN %d: %w", number, err)
	}
	return v, nil
}

func start(number int, dir string, o Options) (*VLAN, error) {
	dir, err := makeDir(dir)
	if err != nil {
		return nil, err
	}
	listener, err := listen(dir)
	if err != nil {
		return nil, errors.Join(err, removeDir(dir))
	}
	v := &VLAN{
		number:   number,
		dir:      dir,
		owner:    o.Owner,
		faults:   newFaults(o.Seed + uint64(number)),
		listener: listener,
		done:     make(chan struct{}),
		clients:  map[*net.UnixConn]struct{}{},
		left:     map[string]Traffic{},
	}
	if o.Capture != "" {
		if v.capture, err = startCapture(o.Capture, fmt.Sprintf("vlan%d", number)); err != nil {
			return nil, errors.Join(err, listener.Close(), removeDir(dir))
		}
	}
	v.close = sync.OnceValue(v.shutDown)
	v.wg.Go(v.accept)
	v.wg.Go(func() { v.faults.run(v.done) })
	return v, nil
}

// Number implements [Switch].
func (v *VLAN) Number() int { return v.number }

// Dir implements [Switch].
func (v *VLAN) Dir() string { return v.dir }

// Close implements [Switch]. It returns when all goroutines of the hub have
// ended and the capture, if any, is complete; that it is not is an error.
func (v *VLAN) Close() error { return v.close() }

func (v *VLAN) shutDown() error {
	v.mu.Lock()
	v.closed = true
	close(v.done)
	for ctl := range v.clients {
		_ = ctl.Close()
	}
	v.mu.Unlock()
	err := v.listener.Close()
	v.wg.Wait()
	if err := errors.Join(err, v.capture.close(), removeDir(v.dir)); err != nil {
		return fmt.Errorf("close VLAN %d: %w", v.number, err)
	}
	return nil
}

// Stats are the counters of a hub.
type Stats struct {
	Ports []PortStats // of the clients connected now, by port number
	// Refused counts connections that became no port, LastRefusal says why
	// the last one did not.
	Refused     int
	LastRefusal error
	// Uncaptured counts frames that are missing from the capture because they
	// came faster than the file could be written.
	Uncaptured uint64
}

// Stats returns the counters as they are now.
func (v *VLAN) Stats() Stats {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := Stats{Refused: v.refused, LastRefusal: v.refusal, Uncaptured: v.capture.lost()}
	for _, p := range v.ports {
		s.Ports = append(s.Ports, p.stats())
	}
	return s
}

// Traffic is what a machine has sent and received, over all its ports and all
// times that it was started.
type Traffic struct {
	Machine    string `json:"machine"` // empty for all clients that are no machines
	FromFrames uint64 `json:"from_frames"`
	FromBytes  uint64 `json:"from_bytes"`
	ToFrames   uint64 `json:"to_frames"`
	ToBytes    uint64 `json:"to_bytes"`
	Dropped    uint64 `json:"dropped"` // frames lost on the way to it: faults, and queues that were full
}

func (t Traffic) plus(p PortStats) Traffic {
	return Traffic{
		Machine:    p.Machine,
		FromFrames: t.FromFrames + p.FramesIn,
		FromBytes:  t.FromBytes + p.BytesIn,
		ToFrames:   t.ToFrames + p.FramesOut,
		ToBytes:    t.ToBytes + p.BytesOut,
		Dropped:    t.Dropped + p.Dropped,
	}
}

// Traffic returns what each machine that has ever been connected has sent and
// received so far, by name.
func (v *VLAN) Traffic() []Traffic {
	v.mu.RLock()
	defer v.mu.RUnlock()
	all := maps.Clone(v.left)
	for _, p := range v.ports {
		all[p.machine] = all[p.machine].plus(p.stats())
	}
	sorted := slices.AppendSeq([]Traffic{}, maps.Values(all)) // never nil, which JSON tells apart
	slices.SortFunc(sorted, func(a, b Traffic) int { return strings.Compare(a.Machine, b.Machine) })
	return sorted
}

func (v *VLAN) accept() {
	for {
		ctl, err := v.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no free file descriptor, for one; that can pass
			v.refuse(fmt.Errorf("accept: %w", err))
			select {
			case <-v.done:
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		v.wg.Go(func() {
			if err := v.serve(ctl); err != nil {
				v.refuse(err)
			}
		})
	}
}

func (v *VLAN) refuse(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refused++
	v.refusal = err
}

// serve handles one client from its request until it leaves. An error means
// that it was refused.
func (v *VLAN) serve(ctl *net.UnixConn) error {
	defer func() { _ = ctl.Close() }()
	if !v.track(ctl) {
		return nil
	}
	defer v.untrack(ctl)

	if err := ctl.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return err
	}
	req, err := readRequest(ctl)
	if err != nil {
		return err
	}
	p, err := v.addPort(req, v.machineOf(ctl))
	if err != nil {
		return err
	}
	var forwarder sync.WaitGroup
	forwarder.Go(func() {
		v.forward(p)
		_ = ctl.Close() // without its data socket the client is gone
	})
	defer forwarder.Wait()
	defer v.removePort(p)

	if _, err := ctl.Write(encodeSockaddr(p.socket)); err != nil {
		return fmt.Errorf("answer %q: %w", req.description, err)
	}
	if err := ctl.SetDeadline(time.Time{}); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, ctl) // however this ends, the client has left
	return nil
}

// track remembers a connection for Close to end; it reports false when the hub
// is closed.
func (v *VLAN) track(ctl *net.UnixConn) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return false
	}
	v.clients[ctl] = struct{}{}
	return true
}

func (v *VLAN) untrack(ctl *net.UnixConn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.clients, ctl)
}

// machineOf names the machine that a client belongs to.
func (v *VLAN) machineOf(ctl *net.UnixConn) string {
	if v.owner == nil {
		return ""
	}
	raw, err := ctl.SyscallConn()
	if err != nil {
		return ""
	}
	pid := 0 // of a client in another PID namespace, too
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	if pid <= 0 {
		return ""
	}
	return v.owner(pid)
}

// addPort opens a port for the client that sent req and belongs to machine.
func (v *VLAN) addPort(req request, machine string) (*port, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.ports) >= maxPorts {
		return nil, fmt.Errorf("refuse %q: all %d ports are taken", req.description, maxPorts)
	}
	number := req.port
	if number == anyPort {
		number = 1 // vde_switch keeps 0 for those who ask for it
		for _, p := range v.ports {
			if p.number == number {
				number++
			}
		}
	}
	at, taken := slices.BinarySearchFunc(v.ports, number, func(p *port, n int) int { return p.number - n })
	if taken {
		return nil, fmt.Errorf("refuse %q: port %d is taken", req.description, number)
	}
	v.serial++
	socket := filepath.Join(v.dir, fmt.Sprintf("%03d.%d", number, v.serial))
	p, err := openPort(number, socket, machine, req)
	if err != nil {
		return nil, err
	}
	v.ports = slices.Insert(v.ports, at, p)
	return p, nil
}

func (v *VLAN) removePort(p *port) {
	v.mu.Lock()
	v.ports = slices.DeleteFunc(v.ports, func(other *port) bool { return other == p })
	v.left[p.machine] = v.left[p.machine].plus(p.stats())
	v.mu.Unlock()
	p.close()
}

// forward hands every frame that p receives to all other ports.
func (v *VLAN) forward(p *port) {
	buf := make([]byte, maxFrame+1)
	for {
		frame, err := p.receive(buf)
		if err != nil {
			return
		}
		v.capture.add(p, frame)
		faulty := v.faults.active.Load()
		v.mu.RLock()
		for _, other := range v.ports {
			switch {
			case other == p:
			case faulty:
				v.faults.pass(p, other, frame)
			default:
				other.send(frame)
			}
		}
		v.mu.RUnlock()
	}
}

// listen opens the socket that clients connect to.
func listen(dir string) (*net.UnixListener, error) {
	// A socket's mode is 0777 less the umask; the directory's mode is what
	// keeps other users out.
	return net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "ctl"), Net: "unix"})
}
