package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/qmp"
)

// QMP implements machine.QMP.
func (m *Machine) QMP(ctx context.Context, command string, args json.RawMessage) (result json.RawMessage, err error) {
	err = m.ask(ctx, "QMP", func(ctx context.Context, p *process) error {
		var arguments any
		if len(args) > 0 && string(args) != "null" && string(args) != "{}" {
			arguments = args
		}
		result, err = p.monitor.Execute(ctx, command, arguments)
		return err
	})
	return result, err
}

// maxEvents is how many events of a machine are kept for its script.
const maxEvents = 4096

// eventLog keeps the QMP events of one run of QEMU.
type eventLog struct {
	mu      sync.Mutex
	events  []qmp.Event
	taken   int           // of events: those that the script has had
	changed chan struct{} // closed and replaced whenever there is more
	ended   bool
}

func newEventLog() *eventLog { return &eventLog{changed: make(chan struct{})} }

// add keeps an event; the oldest goes where there are too many.
func (l *eventLog) add(e qmp.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
	if len(l.events) > maxEvents {
		const excess = maxEvents / 4 // so that this is rare
		l.events = append([]qmp.Event(nil), l.events[excess:]...)
		l.taken = max(0, l.taken-excess)
	}
	l.wake()
}

func (l *eventLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.wake()
}

func (l *eventLog) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// errNoMoreEvents says that QEMU has ended and all its events were taken.
var errNoMoreEvents = errors.New("QEMU has ended")

// next takes the oldest event that was not taken yet, and waits for one if
// need be.
func (l *eventLog) next(ctx context.Context) (qmp.Event, error) {
	for {
		l.mu.Lock()
		changed, ended := l.changed, l.ended
		if l.taken < len(l.events) {
			e := l.events[l.taken]
			l.taken++
			l.mu.Unlock()
			return e, nil
		}
		l.mu.Unlock()
		if ended {
			return qmp.Event{}, errNoMoreEvents
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return qmp.Event{}, context.Cause(ctx)
		}
	}
}

// NextQMPEvent implements machine.QMP.
func (m *Machine) NextQMPEvent(ctx context.Context) (machine.QMPEvent, error) {
	m.mu.Lock()
	p, events := m.process, m.lastEvents
	if p != nil {
		events = p.events
	}
	m.mu.Unlock()
	if events == nil {
		return machine.QMPEvent{}, machine.Errorf(m.cfg.Name, "QMP API is not ready yet, is the VM ready?\nhint: call start() first")
	}
	e, err := events.next(ctx)
	if errors.Is(err, errNoMoreEvents) {
		if p != nil {
			<-p.ctx.Done() // its connections end first
			return machine.QMPEvent{}, p.death()
		}
		return machine.QMPEvent{}, machine.Errorf(m.cfg.Name, "%w, and no event of it is left", err)
	}
	if err != nil {
		return machine.QMPEvent{}, err
	}
	return machine.QMPEvent{
		Event: e.Event,
		Data:  e.Data,
		Timestamp: machine.QMPTimestamp{
			Seconds:      e.Timestamp.Seconds,
			Microseconds: e.Timestamp.Microseconds,
		},
	}, nil
}

// ForwardPort implements machine.PortForwarder.
func (m *Machine) ForwardPort(ctx context.Context, hostPort, guestPort int) error {
	answer, err := m.MonitorCommand(ctx, fmt.Sprintf("hostfwd_add tcp::%d-:%d", hostPort, guestPort))
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "" {
		return machine.Errorf(m.cfg.Name, "forwarding port %d of the host to port %d of the guest: %s", hostPort, guestPort, answer)
	}
	return nil
}
