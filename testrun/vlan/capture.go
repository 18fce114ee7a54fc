package vlan

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

const (
	// captureQueue bounds the frames that wait to be written, in bytes.
	captureQueue = 16 << 20
	// captureEvery is how often they are: what a killed driver loses of them.
	captureEvery = 250 * time.Millisecond
)

// capture writes what the clients of a hub send to a pcapng file, which
// Wireshark and tcpdump read. Each machine is an interface of its name; all other
// clients are the first interface, which has the hub's name and is there in any
// case, because libpcap refuses files without one.
//
// The format is that of draft-ietf-opsawg-pcapng; stamps are in nanoseconds.
type capture struct {
	path  string
	full  chan struct{} // has room for one: half of the queue is taken
	stop  chan struct{}
	ended chan struct{} // closed after the last write
	err   error         // valid then

	mu      sync.Mutex
	queue   batch
	dropped uint64 // frames that found the queue full

	// Of the writer alone.
	file       *os.File
	packets    *pcapgo.NgWriter
	blocks     bytes.Buffer   // what is written to the file next, whole blocks
	interfaces map[string]int // by machine
}

// batch is some frames, one behind the other.
type batch struct {
	frames []captured
	data   []byte
}

type captured struct {
	at      time.Time
	machine string
	length  int
}

// startCapture creates the file path. name is the hub's.
func startCapture(path, name string) (*capture, error) {
	c := &capture{
		path:       path,
		full:       make(chan struct{}, 1),
		stop:       make(chan struct{}),
		ended:      make(chan struct{}),
		interfaces: map[string]int{"": 0},
	}
	var err error
	if c.file, err = os.Create(path); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	hub := ethernet(name)
	hub.Description = "clients that are no machines"
	// A bufio.Writer of ours is used as it is, so one that is larger than a
	// frame brings whole blocks to the buffer.
	c.packets, err = pcapgo.NewNgWriterInterface(bufio.NewWriterSize(&c.blocks, 2*maxFrame), hub, pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: "nixos-test-run"},
	})
	if err == nil {
		err = c.flush()
	}
	if err != nil {
		c.file.Close()
		return nil, fmt.Errorf("capture: %w", err)
	}
	go c.run()
	return c, nil
}

func ethernet(name string) pcapgo.NgInterface {
	return pcapgo.NgInterface{Name: name, LinkType: layers.LinkTypeEthernet}
}

// add takes note of a frame that p has sent. It never waits for the file. On a
// nil capture it does nothing.
func (c *capture) add(p *port, frame []byte) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue.data)+len(frame) > captureQueue {
		c.dropped++
		return
	}
	c.queue.frames = append(c.queue.frames, captured{time.Now(), p.machine, len(frame)})
	c.queue.data = append(c.queue.data, frame...)
	if len(c.queue.data) > captureQueue/2 {
		select {
		case c.full <- struct{}{}:
		default:
		}
	}
}

// lost is how many frames are missing from the file.
func (c *capture) lost() uint64 {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

// close writes what is left. It is called once, when nobody adds frames any
// more.
func (c *capture) close() error {
	if c == nil {
		return nil
	}
	close(c.stop)
	<-c.ended
	if c.err != nil {
		return fmt.Errorf("the capture %s is not complete: %w", c.path, c.err)
	}
	return nil
}

// run writes the file until close is called.
func (c *capture) run() {
	defer close(c.ended)
	ticker := time.NewTicker(captureEvery)
	defer ticker.Stop()
	var written batch
	for last := false; !last; {
		select {
		case <-c.full:
		case <-ticker.C:
		case <-c.stop:
			last = true
		}
		c.mu.Lock()
		c.queue, written = batch{written.frames[:0], written.data[:0]}, c.queue
		c.mu.Unlock()
		if c.err == nil {
			c.err = c.write(written)
		}
	}
	if c.err == nil {
		c.err = c.writeLost()
	}
	c.err = errors.Join(c.err, c.file.Close())
}

func (c *capture) write(b batch) error {
	if len(b.frames) == 0 {
		return nil
	}
	rest := b.data
	for _, f := range b.frames {
		id, known := c.interfaces[f.machine]
		if !known {
			var err error
			if id, err = c.packets.AddInterface(ethernet(f.machine)); err != nil {
				return err
			}
			c.interfaces[f.machine] = id
		}
		info := gopacket.CaptureInfo{Timestamp: f.at, CaptureLength: f.length, Length: f.length, InterfaceIndex: id}
		if err := c.packets.WritePacket(info, rest[:f.length]); err != nil {
			return err
		}
		rest = rest[f.length:]
	}
	return c.flush()
}

// writeLost writes how many frames are missing, for those who read the file.
func (c *capture) writeLost() error {
	lost := c.lost()
	if lost == 0 {
		return nil
	}
	statistics := pcapgo.NgInterfaceStatistics{
		LastUpdate:      time.Now(),
		PacketsReceived: pcapgo.NgNoValue64,
		PacketsDropped:  lost,
	}
	if err := c.packets.WriteInterfaceStats(0, statistics); err != nil {
		return err
	}
	return c.flush()
}

// flush gives the file what there is, in one write: a driver that is killed
// leaves no half of a block.
func (c *capture) flush() error {
	if err := c.packets.Flush(); err != nil {
		return err
	}
	_, err := c.blocks.WriteTo(c.file)
	return err
}
