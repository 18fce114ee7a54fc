package warm_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/warm"
)

// several are machines of which it is noted what is done to them, in order. What
// they can do is tested with QEMU; this is what is done when.
type several struct {
	mu    sync.Mutex
	done  []string        // "NAME ACTION"
	fails map[string]bool // those of done that fail
}

func (s *several) do(name, action string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, name+" "+action)
	if s.fails[name+" "+action] {
		return errors.New(action + " failed")
	}
	return nil
}

// guests are two of them.
func (s *several) guests() []*machine.Guest {
	var all []*machine.Guest
	for _, name := range []string{"alpha", "beta"} {
		all = append(all, &machine.Guest{Machine: &fakeMachine{several: s, name: name, saved: map[string]bool{}}})
	}
	return all
}

// took are the actions on a machine since the last time.
func (s *several) took(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var actions []string
	for _, d := range s.done {
		if action, ok := strings.CutPrefix(d, name+" "); ok {
			actions = append(actions, action)
		}
	}
	return strings.Join(actions, ", ")
}

type fakeMachine struct {
	machine.Machine // nothing else of it is called
	*several
	name  string
	saved map[string]bool
}

// fakeHeld is one that is held.
type fakeHeld struct{ *fakeMachine }

func (h fakeHeld) Release() { _ = h.do(h.name, "release") }

func (m *fakeMachine) Name() string                                      { return m.name }
func (m *fakeMachine) Running() bool                                     { return true }
func (m *fakeMachine) Start(context.Context, machine.StartOptions) error { return nil }
func (m *fakeMachine) Shell(context.Context) (machine.Shell, error)      { return m, nil }
func (m *fakeMachine) Hold(context.Context) (machine.Held, error) {
	return fakeHeld{m}, m.do(m.name, "hold")
}
func (m *fakeMachine) Pause(context.Context) error                       { return m.do(m.name, "pause") }
func (m *fakeMachine) Unpause(context.Context) error                     { return m.do(m.name, "unpause") }
func (m *fakeMachine) Load(context.Context, string) error                { return m.do(m.name, "load") }
func (m *fakeMachine) Has(name string) bool                              { return m.saved[name] }
func (m *fakeMachine) Drop(context.Context, string) error                { return nil }
func (m *fakeMachine) Send(context.Context, string, time.Duration) error { return nil }
func (m *fakeMachine) Save(_ context.Context, name string) error {
	m.saved[name] = true
	return m.do(m.name, "save")
}

func (m *fakeMachine) Receive(context.Context, string, io.Writer) (machine.Result, error) {
	return machine.Result{}, nil
}

func (m *fakeMachine) Feed(context.Context, string, io.Reader, int64) (machine.Result, error) {
	return machine.Result{Stdout: []byte("/run/wake\n")}, nil
}

func (m *fakeMachine) Sleep(context.Context, string) (string, error) { return "ready", nil }

func (m *fakeMachine) Ask(_ context.Context, line string) (string, error) {
	switch {
	case line == "time":
		return "1700000000 123456789", nil
	case strings.Contains(line, "entropy"):
		return "done", m.do(m.name, "entropy and mount")
	case strings.Contains(line, "mount"):
		return "done", m.do(m.name, "mount")
	}
	return "done", nil
}

func (m *fakeMachine) Run(_ context.Context, command string, _ time.Duration) (r machine.Result, _ error) {
	action := ""
	switch {
	case command == "cat /proc/self/mountinfo":
		r.Stdout = []byte("40 1 0:30 / /tmp/shared rw,relatime shared:1 - 9p shared rw,trans=virtio\n")
	case strings.Contains(command, "umount"):
		action = "umount"
	}
	if action != "" && m.do(m.name, action) != nil {
		r.Status = 1
	}
	return r, nil
}

// inPhases says that no machine begins what comes later before all have done what
// comes before.
func (s *several) inPhases(t *testing.T, phases ...string) {
	t.Helper()
	var order []string
	for _, d := range s.done {
		_, action, _ := strings.Cut(d, " ")
		if slices.Contains(phases, action) {
			order = append(order, action)
		}
	}
	if want := slices.SortedStableFunc(slices.Values(order), func(a, b string) int {
		return slices.Index(phases, a) - slices.Index(phases, b)
	}); !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
}

func TestSnapshotsOfSeveral(t *testing.T) {
	for name, test := range map[string]struct {
		fails       string // while saving
		alpha, beta string
		err         string
	}{
		"saved":            {"", "hold, umount, pause, save, unpause, mount, release", "hold, umount, pause, save, unpause, mount, release", ""},
		"one is busy":      {"beta hold", "hold, release", "hold", "hold failed"},
		"a share is busy":  {"beta umount", "hold, umount, mount, release", "hold, umount, release", `machine "beta": cannot be saved: unmounting /tmp/shared`},
		"one cannot pause": {"beta pause", "hold, umount, pause, unpause, mount, release", "hold, umount, pause, unpause, mount, release", "pause failed"},
		"one cannot save":  {"beta save", "hold, umount, pause, save, unpause, mount, release", "hold, umount, pause, save, unpause, mount, release", "save failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &several{fails: map[string]bool{test.fails: true}}
			err := new(warm.Snapshots).Save(t.Context(), "x", s.guests()...)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if got := s.took("alpha"); got != test.alpha {
				t.Errorf("alpha: %s, want %s", got, test.alpha)
			}
			if got := s.took("beta"); got != test.beta {
				t.Errorf("beta: %s, want %s", got, test.beta)
			}
			s.inPhases(t, "hold", "umount", "pause", "save", "unpause", "mount", "release")
		})
	}
}

func TestRestoreOfSeveral(t *testing.T) {
	for name, test := range map[string]struct {
		snapshot, fails string
		alpha           string
		err             string
	}{
		"restored":         {"x", "", "hold, pause, load, unpause, entropy and mount, release", ""},
		"no such snapshot": {"y", "", "hold, release", `machine "alpha": cannot be restored: there is no snapshot "y"`},
		"one is busy":      {"x", "beta hold", "hold, release", "hold failed"},
		"one cannot load":  {"x", "beta load", "hold, pause, load, unpause, release", "load failed"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &several{}
			guests := s.guests()
			snapshots := new(warm.Snapshots)
			must(t, snapshots.Save(t.Context(), "x", guests...))
			s.done, s.fails = nil, map[string]bool{test.fails: true}
			err := snapshots.Restore(t.Context(), test.snapshot, guests...)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if got := s.took("alpha"); got != test.alpha {
				t.Errorf("alpha: %s, want %s", got, test.alpha)
			}
			s.inPhases(t, "hold", "pause", "load", "unpause")
		})
	}
}
