package qemu

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/qmp"
	"vm-prebuild/testrun/shell"
)

const (
	// holdLimit is how long a command of others is waited for. Those that wait for
	// something let others have the shell every two seconds.
	holdLimit = 4 * time.Second

	// jobLimit is how long QEMU may take to write or read all memory that the guest
	// has touched. It does not answer meanwhile.
	jobLimit = 5 * time.Minute
)

// snapshots are what a run of QEMU was at earlier moments, by name. QEMU keeps
// them in its disks, and the memory in a file of ours. They are of no use to
// another run.
type snapshots struct {
	memory string // the block node of memory and devices; "" before the first
	byName map[string]snapshot
	number int // of jobs and tags so far
}

// snapshot is one of them.
type snapshot struct {
	tag     string
	disks   []string // block nodes
	console consoleMark
	shell   shell.Saved
}

// held implements machine.Held.
type held struct {
	guestShell
	m     *Machine
	shell *shell.Held
}

// Hold implements machine.Snapshotter.
func (m *Machine) Hold(ctx context.Context) (machine.Held, error) {
	p, err := m.live()
	if err != nil {
		return nil, err
	}
	ctx, unbind := p.bind(ctx)
	defer unbind()
	limited, cancel := context.WithTimeoutCause(ctx, holdLimit, errors.New("it is being started, or its shell is awaited"))
	defer cancel()
	fail := func(err error) (machine.Held, error) {
		if dead := p.deathBehind(err); dead != nil {
			return nil, dead
		}
		return nil, machine.Errorf(m.cfg.Name, "cannot be saved or restored: %w", err)
	}
	select {
	case <-m.starting:
	case <-limited.Done():
		return fail(context.Cause(limited))
	}
	sh, err := p.shell.Hold(ctx, holdLimit)
	if err == nil {
		h := &held{guestShell{p, sh}, m, sh}
		if err = p.snapshotObstacles(ctx); err == nil {
			return h, nil
		}
		sh.Release()
	}
	m.starting <- struct{}{}
	return fail(err)
}

// Release implements machine.Held.
func (h *held) Release() {
	h.shell.Release()
	h.m.starting <- struct{}{}
}

// snapshotObstacles returns an error when the machine has something that is not
// kept with the rest of it.
func (p *process) snapshotObstacles(ctx context.Context) error {
	var tpm []json.RawMessage
	if err := p.query(ctx, "query-tpm", &tpm); err != nil {
		return err
	}
	blocked, err := p.migrationBlockers(ctx)
	if err != nil {
		return err
	}
	disks, err := p.writableDisks(ctx)
	if err != nil {
		return err
	}
	_, obstacles := revertible(disks)
	obstacles = append(obstacles, statesOfOthers(commandLine(int(p.qemuPID.Load())))...)
	if len(tpm) > 0 {
		obstacles = append(obstacles, hasTPM)
	}
	for _, reason := range blocked {
		// Shares are unmounted before the machine is saved.
		if !strings.Contains(reason, "VirtFS") {
			obstacles = append(obstacles, reason)
		}
	}
	return unsavable(obstacles)
}

// migrationBlockers are what QEMU says it cannot save, at the moment.
func (p *process) migrationBlockers(ctx context.Context) ([]string, error) {
	var migration struct {
		Blocked []string `json:"blocked-reasons"`
	}
	err := p.query(ctx, "query-migrate", &migration)
	return migration.Blocked, err
}

// disk is one that the guest can write to.
type disk struct {
	name, file, format string
	node               string // QEMU's name of what the guest sees
	written            bool   // since QEMU has started
}

// writableDisks returns those of the machine.
func (p *process) writableDisks(ctx context.Context) ([]disk, error) {
	var disks []struct {
		Device   string `json:"device"`
		QDev     string `json:"qdev"`
		Inserted *struct {
			Node     string `json:"node-name"`
			Driver   string `json:"drv"`
			File     string `json:"file"`
			ReadOnly bool   `json:"ro"`
		} `json:"inserted"`
	}
	if err := p.query(ctx, "query-block", &disks); err != nil {
		return nil, err
	}
	var counters []struct {
		Node  string `json:"node-name"`
		Stats struct {
			Highest int64 `json:"wr_highest_offset"`
		} `json:"stats"`
	}
	if err := p.query(ctx, "query-blockstats", &counters); err != nil {
		return nil, err
	}
	written := map[string]bool{}
	for _, c := range counters {
		written[c.Node] = c.Stats.Highest > 0
	}
	var found []disk
	for _, d := range disks {
		if i := d.Inserted; i != nil && !i.ReadOnly {
			found = append(found, disk{cmp.Or(d.Device, d.QDev), i.File, i.Driver, i.Node, written[i.Node]})
		}
	}
	return found, nil
}

// revertible are the nodes of disks that can be put back, and what keeps others from
// it. A disk of another format than qcow2 is the same at all times as long as nothing
// has been written to it: nixpkgs' store images can be written to, and never are.
func revertible(disks []disk) (nodes, obstacles []string) {
	for _, d := range disks {
		switch {
		case d.format == "qcow2":
			nodes = append(nodes, d.node)
		case d.written:
			obstacles = append(obstacles, fmt.Sprintf(
				"it has written to the disk %s (%s), whose format is %s\nhint: only qcow2 can be put back; give the disk that format", d.name, d.file, d.format))
		}
	}
	return nodes, obstacles
}

// do calls f with a context that ends with the process, and explains its error.
func (h *held) do(ctx context.Context, what string, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %v", limit))
	defer cancel()
	ctx, unbind := h.p.bind(ctx)
	defer unbind()
	err := f(ctx)
	if err == nil {
		return nil
	}
	if dead := h.p.deathBehind(err); dead != nil {
		return dead
	}
	return machine.Errorf(h.m.cfg.Name, "%s: %w", what, err)
}

// Pause implements machine.Held.
func (h *held) Pause(ctx context.Context) error {
	return h.do(ctx, "stopping the guest", answerLimit, func(ctx context.Context) error {
		_, err := h.p.monitor.Execute(ctx, "stop", nil)
		return err
	})
}

// Unpause implements machine.Held.
func (h *held) Unpause(ctx context.Context) error {
	return h.do(ctx, "letting the guest go on", answerLimit, func(ctx context.Context) error {
		_, err := h.p.monitor.Execute(ctx, "cont", nil)
		return err
	})
}

// Has implements machine.Held.
func (h *held) Has(name string) bool {
	_, ok := h.p.snapshots.byName[name]
	return ok
}

// Save implements machine.Held.
func (h *held) Save(ctx context.Context, name string) error {
	return h.do(ctx, fmt.Sprintf("saving %q", name), jobLimit, func(ctx context.Context) error {
		return h.p.saveSnapshot(ctx, name, h.shell.Saved())
	})
}

func (p *process) saveSnapshot(ctx context.Context, name string, sh shell.Saved) error {
	s := &p.snapshots
	blocked, err := p.migrationBlockers(ctx)
	if err != nil {
		return err
	}
	if err := unsavable(blocked); err != nil {
		return err
	}
	all, err := p.writableDisks(ctx)
	if err != nil {
		return err
	}
	disks, obstacles := revertible(all)
	if err := unsavable(obstacles); err != nil {
		return err
	}
	if s.memory == "" {
		if s.memory, err = p.addMemoryNode(ctx); err != nil {
			return fmt.Errorf("file for the guest's memory: %w", err)
		}
	}
	// Of a machine that was restored from a file, too, all memory is to be kept.
	if err := p.setIgnoreShared(ctx, false); err != nil {
		return err
	}
	if err := p.console.settle(ctx, p.stdout); err != nil {
		return fmt.Errorf("its console: %w", err)
	}
	s.number++
	n := snapshot{tag: fmt.Sprintf("vm-prebuild-%d", s.number), disks: disks, console: p.console.mark(), shell: sh}
	err = p.job(ctx, "snapshot-save", map[string]any{"tag": n.tag, "vmstate": s.memory, "devices": append([]string{s.memory}, disks...)})
	if err != nil {
		return err
	}
	old, replaced := s.byName[name]
	if s.byName == nil {
		s.byName = map[string]snapshot{}
	}
	s.byName[name] = n
	if replaced {
		return p.deleteSnapshot(ctx, old)
	}
	return nil
}

// Load implements machine.Held.
func (h *held) Load(ctx context.Context, name string) error {
	return h.do(ctx, fmt.Sprintf("restoring %q", name), jobLimit, func(ctx context.Context) error {
		n, ok := h.p.snapshots.byName[name]
		if !ok {
			return &machine.NoSnapshotError{Name: name}
		}
		if err := h.shell.Forget(ctx, n.shell); err != nil {
			return err
		}
		err := h.p.setIgnoreShared(ctx, false)
		if err == nil {
			memory := h.p.snapshots.memory
			err = h.p.job(ctx, "snapshot-load", map[string]any{"tag": n.tag, "vmstate": memory, "devices": append([]string{memory}, n.disks...)})
		}
		if err == nil {
			err = h.p.console.settle(ctx, h.p.stdout)
		}
		if err != nil {
			// A part of the guest is one thing, and a part is another.
			err = fmt.Errorf("the machine is lost: QEMU could not put it back to %q: %w", name, err)
			h.p.fail(err)
			return err
		}
		h.p.console.rewind(n.console)
		// Its shell has been taught, whatever has become of it since.
		h.p.connected.Store(true)
		h.p.greeted.Store(true)
		return nil
	})
}

// Drop implements machine.Held.
func (h *held) Drop(ctx context.Context, name string) error {
	n, ok := h.p.snapshots.byName[name]
	if !ok {
		return nil
	}
	delete(h.p.snapshots.byName, name)
	return h.do(ctx, fmt.Sprintf("dropping %q", name), jobLimit, func(ctx context.Context) error {
		return h.p.deleteSnapshot(ctx, n)
	})
}

func (p *process) deleteSnapshot(ctx context.Context, n snapshot) error {
	return p.job(ctx, "snapshot-delete", map[string]any{"tag": n.tag, "devices": append([]string{p.snapshots.memory}, n.disks...)})
}

// addMemoryNode gives QEMU an image for the guests' memory, which no device has.
// Its file has no name: it goes when QEMU does.
func (p *process) addMemoryNode(ctx context.Context) (string, error) {
	const file, image = "vm-prebuild-memory-file", "vm-prebuild-memory"
	path := filepath.Join(p.cfg.Dirs.State, "memory.qcow2")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	defer os.Remove(path)
	fast := map[string]any{"no-flush": true} // nobody reads it after a crash of the host
	for _, step := range []struct {
		command string
		args    map[string]any
	}{
		{"blockdev-create", map[string]any{"options": map[string]any{"driver": "file", "filename": path, "size": 0}}},
		{"blockdev-add", map[string]any{"driver": "file", "node-name": file, "filename": path, "cache": fast}},
		// Memory is written behind the image's end. Large clusters make for little
		// that describes it.
		{"blockdev-create", map[string]any{"options": map[string]any{"driver": "qcow2", "file": file, "size": 1 << 20, "cluster-size": 1 << 20}}},
		{"blockdev-add", map[string]any{"driver": "qcow2", "node-name": image, "file": file, "cache": fast}},
	} {
		var err error
		if step.command == "blockdev-create" {
			err = p.job(ctx, step.command, step.args)
		} else {
			_, err = p.monitor.Execute(ctx, step.command, step.args)
		}
		if err != nil {
			return "", err
		}
	}
	return image, nil
}

// jobPrefix begins the identifiers of our jobs.
const jobPrefix = "vm-prebuild-"

// job has QEMU do what takes a while, and waits for its end.
func (p *process) job(ctx context.Context, command string, args map[string]any) error {
	p.snapshots.number++
	id := fmt.Sprintf("%s%d", jobPrefix, p.snapshots.number)
	args = maps.Clone(args)
	args["job-id"] = id
	if _, err := p.monitor.Execute(ctx, command, args); err != nil {
		return err
	}
	for {
		var jobs []struct {
			ID     string `json:"id"`
			Status string `json:"status"`
			Error  string `json:"error"`
		}
		if err := p.query(ctx, "query-jobs", &jobs); err != nil {
			return err
		}
		for _, j := range jobs {
			if j.ID != id || j.Status != "concluded" {
				continue
			}
			_, err := p.monitor.Execute(ctx, "job-dismiss", map[string]string{"id": id})
			if j.Error != "" {
				return fmt.Errorf("QEMU's %s: %s", command, j.Error)
			}
			return err
		}
		if err := nap(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// ofOurJob says whether an event tells of a job that no script has asked for.
func ofOurJob(e qmp.Event) bool {
	id, _ := e.Data["id"].(string)
	return e.Event == "JOB_STATUS_CHANGE" && strings.HasPrefix(id, jobPrefix)
}

func unsavable(reasons []string) error {
	if len(reasons) == 0 {
		return nil
	}
	slices.SortStableFunc(reasons, func(a, b string) int { // hints come last
		return strings.Count(a, "\n") - strings.Count(b, "\n")
	})
	return &machine.UnsavableError{Reason: strings.Join(reasons, "; ")}
}
