package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/shell"
	"vm-prebuild/testrun/startcommand"
)

// How long a machine may take to write the state of its devices, and to be up
// with it. That is about a megabyte: the guest's memory is a file, and not part of
// it.
const (
	saveLimit    = time.Minute // and again to stop the guest
	restoreLimit = 30 * time.Second
)

// StartSavable implements machine.Saver. It starts the machine twice: the first
// time only to see what the start script makes of it, while the guest does not
// run.
func (m *Machine) StartSavable(ctx context.Context, o machine.StartOptions, f machine.StateFiles) error {
	if err := m.savable(o); err != nil {
		return err
	}
	select {
	case <-m.starting:
		defer func() { m.starting <- struct{}{} }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var found hardware
	err := m.cfg.Bus.Nested(m.cfg.Name, "looking at the machine's hardware", func() error {
		trial := &Machine{cfg: m.cfg, moved: m.moved}
		trial.cfg.Bus = event.NewBus() // nobody need hear of this run
		p, err := trial.execute(ctx, o, run{
			state: startcommand.State{Paused: true, Disk: f.Disk},
			ready: func(ctx context.Context, p *process) (err error) {
				if found, err = p.survey(ctx); err != nil {
					return err
				}
				if err := found.check(); err != nil {
					return err
				}
				found.Files, err = p.identifyFiles(ctx, found.named)
				return err
			},
		})
		if err == nil {
			p.kill()
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := fits(filepath.Dir(f.RAM), found.MemoryBytes); err != nil {
		return err
	}
	return m.start(ctx, o, "starting vm so that it can be saved", run{
		state: startcommand.State{RAM: f.RAM, MemoryBytes: found.MemoryBytes, Disk: f.Disk},
		files: f,
		found: found.Files,
	})
}

// fits returns an error when a directory may not have the space for a guest's
// memory: a guest whose memory is a file dies when it writes a page for which there
// is none.
func fits(dir string, memoryBytes int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < memoryBytes {
		return &machine.UnsavableError{Reason: fmt.Sprintf("its memory has %d MiB, and in %s are only %d MiB free", memoryBytes>>20, dir, free>>20)}
	}
	return nil
}

// savable returns an error when the machine's disk is not one that it has made
// for itself.
func (m *Machine) savable(o machine.StartOptions) error {
	if hasVariable(environment(o), "NIX_DISK_IMAGE") {
		return &machine.UnsavableError{Reason: "NIX_DISK_IMAGE gives it a disk that others may have written to"}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used {
		return &machine.UnsavableError{Reason: "it has been running before"}
	}
	return nil
}

func hasVariable(env []string, name string) bool {
	return slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
}

// environment is that of the machine's process.
func environment(o machine.StartOptions) []string {
	if o.Env == nil {
		return os.Environ()
	}
	return o.Env
}

// Save implements machine.Saver.
func (m *Machine) Save(ctx context.Context) (machine.Hardware, error) {
	p, err := m.live()
	if err != nil {
		return nil, err
	}
	if p.run.state.RAM == "" || p.run.state.Reads {
		return nil, machine.Errorf(m.cfg.Name, "was not started in a way that lets it be saved")
	}
	alive, unbind := p.bind(ctx)
	defer unbind()
	h, err := p.save(alive)
	if err != nil {
		if dead := p.deathBehind(err); dead != nil {
			return nil, dead
		}
		return nil, machine.Errorf(m.cfg.Name, "saving: %w", err)
	}
	if err := m.Crash(ctx); err != nil {
		return nil, err
	}
	return json.Marshal(h)
}

func (p *process) save(ctx context.Context) (hardware, error) {
	h, err := p.survey(ctx)
	if err != nil {
		return h, err
	}
	if err := h.check(); err != nil {
		return h, err
	}
	if h.Shell, err = p.stop(ctx); err != nil {
		return h, err
	}
	// Reading files takes as long as it takes.
	if h.Files, err = p.identifyFiles(ctx, h.named); err != nil {
		return h, err
	}
	if err := h.unwritten(p.run.found); err != nil {
		return h, err
	}
	return h, p.saveDevices(ctx)
}

// limitSaving returns the context of something that QEMU does for a machine to be
// saved.
func limitSaving(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, saveLimit, fmt.Errorf("QEMU did not save its state within %v", saveLimit))
}

// stop stops the guest, and returns the state of its shell. Nothing writes to any
// disk then.
func (p *process) stop(ctx context.Context) (s shell.Saved, err error) {
	ctx, cancel := limitSaving(ctx)
	defer cancel()
	if s, err = p.shell.Saved(ctx); err != nil {
		return s, err
	}
	_, err = p.monitor.Execute(ctx, "stop", nil)
	return s, err
}

// saveDevices writes the state of the devices.
func (p *process) saveDevices(ctx context.Context) error {
	ctx, cancel := limitSaving(ctx)
	defer cancel()
	out, err := os.OpenFile(p.run.files.Devices, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	l, err := listen(filepath.Join(p.cfg.Dirs.State, "migrate"))
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	// QEMU 7.2 does not write to a plain file.
	if err := p.migrate(ctx, "migrate", l.Addr().String()); err != nil {
		return err
	}
	conn, err := l.Accept()
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.Copy(out, conn); err != nil {
		return err
	}
	if err := p.migrated(ctx); err != nil {
		return err
	}
	return out.Close()
}

// migrate begins to write or read the state of devices.
func (p *process) migrate(ctx context.Context, command, socket string) error {
	// The guest's memory is a file already.
	if err := p.setIgnoreShared(ctx, true); err != nil {
		return err
	}
	if command == "migrate" {
		// Without a limit; QEMU's default is that of a network.
		speed := map[string]any{"max-bandwidth": int64(1) << 40}
		if _, err := p.monitor.Execute(ctx, "migrate-set-parameters", speed); err != nil {
			return err
		}
	}
	_, err := p.monitor.Execute(ctx, command, map[string]string{"uri": "unix:" + socket})
	return err
}

// setIgnoreShared says whether the memory is left out of what QEMU saves if it is
// a file that is shared.
func (p *process) setIgnoreShared(ctx context.Context, on bool) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	capabilities := map[string]any{"capabilities": []capability{{"x-ignore-shared", on}}}
	_, err := p.monitor.Execute(ctx, "migrate-set-capabilities", capabilities)
	return err
}

// migrated waits until QEMU has written or read the state of its devices.
func (p *process) migrated(ctx context.Context) error {
	for {
		var info struct {
			Status string `json:"status"`
			Error  string `json:"error-desc"`
		}
		if err := p.query(ctx, "query-migrate", &info); err != nil {
			return err
		}
		switch info.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return fmt.Errorf("QEMU's migration %s %s", info.Status, info.Error)
		}
		if err := nap(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

func nap(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// query executes a command without arguments and decodes its result.
func (p *process) query(ctx context.Context, command string, result any) error {
	value, err := p.monitor.Execute(ctx, command, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(value, result); err != nil {
		return fmt.Errorf("QEMU's answer to %s: %w", command, err)
	}
	return nil
}

// Restore implements machine.Restorer.
func (m *Machine) Restore(ctx context.Context, o machine.StartOptions, f machine.StateFiles, h machine.Hardware, wake func(context.Context, machine.Shell) error) error {
	var saved hardware
	if err := json.Unmarshal(h, &saved); err != nil {
		return machine.Errorf(m.cfg.Name, "the saved state's hardware: %w", err)
	}
	if err := m.savable(o); err != nil {
		return err
	}
	select {
	case <-m.starting:
		defer func() { m.starting <- struct{}{} }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	state := m.Dirs().State
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	state, err := filepath.EvalSymlinks(state)
	if err != nil {
		return err
	}
	r := run{
		state: startcommand.State{RAM: f.RAM, MemoryBytes: saved.MemoryBytes, Reads: true, Incoming: true},
		files: f,
		shell: &saved.Shell,
		ready: func(ctx context.Context, p *process) error {
			if err := p.compare(ctx, saved); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(ctx, restoreLimit, fmt.Errorf("the restored machine was not up within %v", restoreLimit))
			defer cancel()
			if err := p.restore(ctx); err != nil {
				return err
			}
			if err := p.connect(ctx); err != nil {
				return err
			}
			return wake(ctx, guestShell{p, p.shell})
		},
		console: saved.Console,
	}
	if saved.Disk {
		if err := m.checkDisk(f.Disk, saved.DiskBase); err != nil {
			return machine.Errorf(m.cfg.Name, "disk of a saved state: %w", err)
		}
		r.state.Disk = filepath.Join(state, m.cfg.Name+".qcow2")
		if err := writeOverlay(f.Disk, r.state.Disk); err != nil {
			return machine.Errorf(m.cfg.Name, "disk of a saved state: %w", err)
		}
	}
	err = m.start(ctx, o, "restoring vm", r)
	if err != nil && r.state.Disk != "" {
		return errors.Join(err, os.Remove(r.state.Disk))
	}
	if err == nil {
		m.mu.Lock()
		m.used, m.disk = true, r.state.Disk
		m.past = nil // it is part of the state
		m.mu.Unlock()
	}
	return err
}

// checkDisk returns an error when the disk of a saved state is not laid over base, or
// that is not what a start script lays disks over. It is found out before QEMU opens
// any of them, because the guest could read it.
func (m *Machine) checkDisk(disk, base string) error {
	found, err := qcow2Backing(disk)
	if err != nil {
		return err
	}
	if found != base {
		return fmt.Errorf("%s is laid over %q, not %q as when it was saved", disk, found, base)
	}
	text, err := m.cfg.Command.Text()
	if err != nil {
		return err
	}
	return checkBase(disk, base, text)
}

// checkBase returns an error when the image below a disk is neither in the Nix store nor
// one that the text of the start script names.
func checkBase(disk, base, text string) error {
	if base == "" {
		return nil
	}
	path, err := filepath.EvalSymlinks(base)
	if err != nil {
		return fmt.Errorf("%s is laid over an image that is not there: %w", disk, err)
	}
	words := strings.FieldsFunc(text, func(c rune) bool { return strings.ContainsRune(" \t\n\"'=,;", c) })
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || !filepath.IsAbs(base) || !inStore(path) && !slices.Contains(words, base) {
		return fmt.Errorf("%s is laid over %s, which is no file of the Nix store's, and none that the start script names", disk, base)
	}
	return nil
}

// compare returns an error when a machine is not the one that was saved.
func (p *process) compare(ctx context.Context, saved hardware) error {
	found, err := p.survey(ctx)
	if err != nil {
		return err
	}
	if err := found.fits(saved); err != nil {
		return &machine.MismatchError{Reason: err.Error()}
	}
	if found.Files, err = p.identifyFiles(ctx, found.named); err != nil {
		return err
	}
	return found.sameFiles(saved)
}

// restore has a QEMU that waits for it read the state of its devices, and run
// the guest.
func (p *process) restore(ctx context.Context) error {
	in, err := openRegular(p.run.files.Devices)
	if err != nil {
		return err
	}
	defer in.Close()
	socket := filepath.Join(p.cfg.Dirs.State, "migrate")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := p.migrate(ctx, "migrate-incoming", socket); err != nil { // QEMU listens then
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.Copy(conn, in); err != nil {
		return fmt.Errorf("QEMU did not take the saved state: %w", err)
	}
	if err := conn.Close(); err != nil {
		return err
	}
	if err := p.migrated(ctx); err != nil {
		return err
	}
	// A "cont" that comes earlier is swallowed, and the guest never runs.
	for {
		status, err := p.monitor.QueryStatus(ctx)
		if err != nil {
			return err
		}
		if status != "inmigrate" {
			break
		}
		if err := nap(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	_, err = p.monitor.Execute(ctx, "cont", nil)
	return err
}
