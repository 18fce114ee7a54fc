package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/qemu"
	"vm-prebuild/testrun/reaper"
	"vm-prebuild/testrun/startcommand"
	"vm-prebuild/testrun/vlan"
	"vm-prebuild/testrun/warm"
)

// start starts clones of one machine at once. It returns how long it took until
// all have answered at the ready point, in seconds, and their median private
// memory, in bytes.
func (b *warmBench) start(ctx context.Context, name string, o warm.Options, clones int, sinks ...event.Sink) (took, private float64, err error) {
	dir, err := os.MkdirTemp(b.dir, "m")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	r, err := reaper.Start()
	if err != nil {
		return 0, 0, err
	}
	defer r.Close()
	v, err := vlan.Start(1, filepath.Join(dir, "vde1.ctl"), vlan.Options{})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	guests := make([]*machine.Guest, clones)
	for i := range guests {
		guests[i], err = b.machine(filepath.Join(dir, strconv.Itoa(i)), name, o, v, r, event.NewBus(sinks...))
		if err != nil {
			return 0, 0, err
		}
		defer func() { err = errors.Join(err, guests[i].Machine.Release()) }()
	}
	failed := make([]error, clones)
	var wg sync.WaitGroup
	begin := time.Now()
	for i, g := range guests {
		wg.Go(func() { failed[i] = firstAnswer(ctx, g, o) })
	}
	wg.Wait()
	took = time.Since(begin).Seconds()
	if err := errors.Join(failed...); err != nil {
		return 0, 0, err
	}
	own := figures{}
	for _, g := range guests {
		bytes, err := privateMemory(g.Machine.(machine.HasProcess).PID())
		if err != nil {
			return 0, 0, err
		}
		own[""] = append(own[""], float64(bytes))
	}
	fmt.Fprintf(b.log, "%s: %d × %s: %.2f s\n", name, clones, o.Mode, took)
	return took, own.median(""), nil
}

// firstAnswer starts a machine and has it answer at its ready point. The limit is
// that of a cold boot on a slow machine.
func firstAnswer(ctx context.Context, g *machine.Guest, o warm.Options) error {
	const limit = 5 * time.Minute
	if unit, ok := strings.CutPrefix(o.Ready.String(), "unit:"); ok && o.Mode == warm.Off {
		if err := g.WaitForUnit(ctx, unit, "", limit); err != nil {
			return err
		}
	}
	_, err := g.Succeed(ctx, []string{"true"}, limit)
	return err
}

func (b *warmBench) machine(dir, name string, o warm.Options, v *vlan.VLAN, r *reaper.Reaper, bus *event.Bus) (*machine.Guest, error) {
	shared := filepath.Join(dir, "shared")
	if err := os.MkdirAll(shared, 0o700); err != nil {
		return nil, err
	}
	g := &machine.Guest{
		Machine: qemu.New(qemu.Config{
			Name:        name,
			Command:     startcommand.Command{Script: b.starts[name]},
			Dirs:        machine.Dirs{State: filepath.Join(dir, "state"), Shared: shared, Out: dir},
			ForceTCG:    func() (bool, error) { return b.tcg, nil },
			BootTimeout: 5 * time.Minute,
			Bus:         bus,
			Reaper:      r,
		}),
		Bus:  bus,
		Boot: machine.StartOptions{Env: append(os.Environ(), "QEMU_VDE_SOCKET_1="+v.Dir())},
	}
	if o.Mode != warm.Off {
		g.Starter = warm.NewStarter(o, bus)
	}
	return g, nil
}

// privateMemory is what nobody shares with a process, in bytes.
func privateMemory(pid int) (sum int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "Private_Dirty" && name != "Private_Clean" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("smaps_rollup: %q: %w", line, err)
		}
		sum += kib << 10
	}
	return sum, nil
}

// sinkFunc is called for each record.
type sinkFunc func(event.Record)

// Handle implements event.Sink.
func (f sinkFunc) Handle(r event.Record) { f(r) }

// Close implements event.Sink.
func (sinkFunc) Close() error { return nil }
