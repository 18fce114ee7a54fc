package testrun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
)

// snapshotCalls save a running machine and put it back.
var snapshotCalls = map[string]machineCall{
	"save":    snapshotCall((*machine.Guest).Save),
	"restore": snapshotCall((*machine.Guest).Restore),
}

func snapshotCall(f func(*machine.Guest, context.Context, string) error) machineCall {
	return func(ctx context.Context, g *machine.Guest, r script.Request) (any, error) {
		var a struct{ Name string }
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, f(g, ctx, a.Name)
	}
}

// rollbackCalls are the two ends of a block of the script that is undone.
var rollbackCalls = map[string]driverCall{
	"rollback_begin": func(ctx context.Context, d *driver, r script.Request) (any, error) {
		var a struct {
			Machines []string `json:"machines"` // null: all that run
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		id, err := d.beginRollback(ctx, r.Env, a.Machines)
		if err != nil {
			return nil, err
		}
		return map[string]any{"id": id}, nil
	},
	"rollback_end": func(ctx context.Context, d *driver, r script.Request) (any, error) {
		var a struct {
			ID int `json:"id"`
		}
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		return none, d.endRollback(ctx, r.Env, a.ID)
	},
}

// rollbacks are the blocks of a script that are undone when they end.
type rollbacks struct {
	mu    sync.Mutex
	saved int // snapshots so far
	last  int // block
	open  map[int]*rollback

	// spare are the last ones that have ended, by their machines. As long as the
	// script calls no other operation after that, the machines are what they were
	// when that block began, and another need not save them.
	spare      map[string]*rollback
	operations int
}

// rollback is what is undone when a block ends.
type rollback struct {
	snapshot   string
	all        bool           // of all machines that ran
	processes  map[string]int // of its machines: the runs that are put back
	operations int            // how many there were when it ended
}

func (r *rollback) machines() []string { return slices.Sorted(maps.Keys(r.processes)) }

// note counts what may change machines.
func (b *rollbacks) note(r script.Request) {
	if _, ok := rollbackCalls[r.Method]; ok && r.Machine == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.operations++
}

// take removes the spare rollback of machines and says whether it is of use.
func (b *rollbacks) take(machines []string) (spare *rollback, fits bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := strings.Join(machines, " ")
	spare = b.spare[key]
	delete(b.spare, key)
	return spare, spare != nil && spare.operations == b.operations
}

// name is that of another snapshot.
func (b *rollbacks) name() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saved++
	return fmt.Sprintf("(block %d)", b.saved)
}

func (b *rollbacks) begin(r *rollback) (id int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	if b.open == nil {
		b.open, b.spare = map[int]*rollback{}, map[string]*rollback{}
	}
	b.open[b.last] = r
	return b.last
}

func (b *rollbacks) end(id int) (*rollback, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.open[id]
	delete(b.open, id)
	return r, ok
}

// put makes a rollback that has ended the spare one, and returns that which was.
func (b *rollbacks) put(r *rollback) (old *rollback) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.operations++ // what was spare until now is no more
	r.operations = b.operations
	key := strings.Join(r.machines(), " ")
	old, b.spare[key] = b.spare[key], r
	return old
}

// beginRollback saves machines, or all that run, unless they are what they were
// when the last such block began.
func (d *driver) beginRollback(ctx context.Context, env script.Environment, names []string) (int, error) {
	all := names == nil
	if all {
		if names = d.running(); len(names) == 0 {
			d.bus.Log(event.Warning, "", "no machine runs: there is nothing that could be undone")
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	spare, fits := d.rollbacks.take(names)
	if fits {
		return d.rollbacks.begin(spare), nil
	}
	guests, err := d.guests(env, names)
	if err != nil {
		return 0, err
	}
	r := &rollback{snapshot: d.rollbacks.name(), all: all, processes: map[string]int{}}
	err = d.bus.Nested(only(names), "saving "+strings.Join(names, ", "), func() error {
		if spare != nil {
			if err := d.snapshots.Drop(ctx, spare.snapshot, guests...); err != nil {
				return err
			}
		}
		return d.snapshots.Save(ctx, r.snapshot, guests...)
	})
	if err != nil {
		return 0, err
	}
	for _, g := range guests {
		r.processes[g.Machine.Name()] = processOf(g.Machine)
	}
	return d.rollbacks.begin(r), nil
}

// endRollback puts machines back.
func (d *driver) endRollback(ctx context.Context, env script.Environment, id int) error {
	r, ok := d.rollbacks.end(id)
	if !ok {
		return fmt.Errorf("there is no block %d to be undone", id)
	}
	if r.all {
		for _, name := range d.running() {
			if _, ok := r.processes[name]; !ok {
				d.bus.Log(event.Warning, name, "was started in a block that is undone now; it goes on")
			}
		}
	}
	guests, err := d.guests(env, r.machines())
	if err != nil {
		return err
	}
	guests = slices.DeleteFunc(guests, func(g *machine.Guest) bool {
		ended := processOf(g.Machine) != r.processes[g.Machine.Name()]
		if ended {
			err = errors.Join(err, machine.Errorf(g.Machine.Name(),
				"has ended in a block that was to be undone, and what was saved ended with it\nhint: shutdown() and crash() are no part of what can be undone"))
		}
		return ended
	})
	err = errors.Join(d.bus.Nested(only(r.machines()), "undoing what was done to "+strings.Join(r.machines(), ", "), func() error {
		return d.snapshots.Restore(ctx, r.snapshot, guests...)
	}), err)
	if err != nil {
		return err
	}
	if old := d.rollbacks.put(r); old != nil {
		return d.snapshots.Drop(ctx, old.snapshot, guests...)
	}
	return nil
}

// only is the name of the machine, if it is one.
func only(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return ""
}

// processOf is the number of a machine's process; 0 when it does not run.
func processOf(m machine.Machine) int {
	if p, ok := m.(machine.HasProcess); ok {
		return p.PID()
	}
	return 0
}

// guests are the machines of these names.
func (d *driver) guests(env script.Environment, names []string) ([]*machine.Guest, error) {
	var all []*machine.Guest
	for _, name := range names {
		m, err := d.machine(name)
		if err != nil {
			return nil, err
		}
		all = append(all, d.guest(m, env))
	}
	return all, nil
}

// running are the names of the machines that run.
func (d *driver) running() []string {
	var names []string
	for _, m := range d.all() {
		if m.Running() {
			names = append(names, m.Name())
		}
	}
	return names
}
