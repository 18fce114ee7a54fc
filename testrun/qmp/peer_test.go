package qmp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"vm-prebuild/testrun/qmp"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}`

// peer is QEMU's end of a connection, played by a test.
type peer struct {
	net.Conn
	r *bufio.Reader
}

type command struct {
	Execute   string
	Arguments json.RawMessage
	ID        uint64
}

// command reads one command; at the end of the connection it is empty.
func (p *peer) command() command {
	line, err := p.r.ReadString('\n')
	if err != nil {
		return command{}
	}
	var c command
	if err := json.Unmarshal([]byte(line), &c); err != nil {
		panic(fmt.Sprintf("the monitor sent %q: %v", line, err))
	}
	return c
}

// send writes the lines in one go.
func (p *peer) send(lines ...string) {
	_, _ = p.Write([]byte(strings.Join(lines, "\r\n") + "\r\n"))
}

func (p *peer) reply(id uint64, value string) {
	p.send(fmt.Sprintf(`{"return": %s, "id": %d}`, value, id))
}

// newMonitor returns a monitor and its peer. script, if any, is what the peer
// does, in a goroutine of its own.
func newMonitor(t *testing.T, script func(*peer)) (*qmp.Monitor, *peer) {
	t.Helper()
	ours, theirs := net.Pipe()
	m := qmp.New(ours)
	p := &peer{theirs, bufio.NewReader(theirs)}
	var wg sync.WaitGroup
	if script != nil {
		wg.Go(func() { script(p) })
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		_ = p.Close()
		wg.Wait()
	})
	return m, p
}

// deadline bounds what ought to end long before.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
