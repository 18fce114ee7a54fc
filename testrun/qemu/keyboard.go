package qemu

import (
	"context"
	"strings"
	"sync"
	"time"

	"vm-prebuild/testrun/machine"
)

// QEMU presses keys at its own pace, keyDelay between any two movements of a
// key (kbd_default_delay_ms in its ui/input.c), and drops what does not fit
// into a queue of 1,024 entries, three a movement. keyBacklog keeps far away
// from that.
const (
	keyDelay   = 10 * time.Millisecond
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
	q.until = q.until.Add(time.Duration(2*keys) * keyDelay)
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
	answer, err := m.MonitorCommand(ctx, "sendkey "+chord)
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "" {
		return machine.Errorf(m.cfg.Name, "pressing %q: %s\nhint: keys have QEMU's names, joined by a dash: ctrl-alt-f1, ret, 0x0C", chord, answer)
	}
	return nil
}
