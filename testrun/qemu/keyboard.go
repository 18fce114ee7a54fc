package qemu

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"vm-prebuild/testrun/machine"
)

// QEMU presses and releases keys with a pause between any two such movements.
// Its default of 10 ms fills the 16 bytes of a PS/2 keyboard within a tenth of
// a second in which the guest does not run, and what comes then is lost; twice
// that is still faster than people type.
//
// QEMU also drops what does not fit into a queue of its own, of 1,024 entries,
// three a movement (ui/input.c). keyBacklog keeps far away from that.
const (
	keyPause   = 20 * time.Millisecond
	keyBacklog = 500 * time.Millisecond
)

// keyQueue knows how far QEMU has come with the keys that it was given.
type keyQueue struct {
	mu    sync.Mutex
	until time.Time // when QEMU will have pressed them all
}

// wait returns when the queue has room for a chord of the given number of
// keys, which it counts as queued.
func (q *keyQueue) wait(ctx context.Context, keys int) error {
	q.mu.Lock()
	now := time.Now()
	if q.until.Before(now) {
		q.until = now
	}
	pause := q.until.Sub(now) - keyBacklog
	q.until = q.until.Add(time.Duration(2*keys) * keyPause)
	q.mu.Unlock()
	if pause <= 0 {
		return nil
	}
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// PressKeys implements machine.Keyboard by QEMU's sendkey.
func (m *Machine) PressKeys(ctx context.Context, chord string) error {
	if err := m.keys.wait(ctx, strings.Count(chord, "-")+1); err != nil {
		return err
	}
	command := "sendkey " + chord
	if !strings.Contains(chord, " ") { // a script may give a pause of its own
		command += fmt.Sprintf(" %d", keyPause.Milliseconds())
	}
	answer, err := m.MonitorCommand(ctx, command)
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "" {
		return machine.Errorf(m.cfg.Name, "pressing %q: %s\nhint: keys have QEMU's names, joined by a dash: ctrl-alt-f1, ret, 0x0C", chord, answer)
	}
	return nil
}
