package warm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/warm"
)

// state returns the directory of the only state of a lab.
func (l *lab) state(t testing.TB) string {
	t.Helper()
	entries, err := os.ReadDir(l.store.Dir)
	must(t, err)
	if len(entries) != 1 {
		t.Fatalf("the store has %v", entries)
	}
	return filepath.Join(l.store.Dir, entries[0].Name())
}

// refused wants a machine that must be warm not to start, soon, and for a reason.
func (l *lab) refused(t *testing.T, reason string) {
	t.Helper()
	g, _ := l.machine(t, warm.Options{Mode: warm.Require})
	begin := time.Now()
	err := g.Start(t.Context(), g.Boot)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("error %v, want one with %q", err, reason)
	}
	if g.Machine.Running() {
		t.Error("the machine runs")
	}
}

// A state of which a file is not what was saved is never restored, and the machine
// boots.
func TestDamagedState(t *testing.T) {
	l := newLab(t, "mini")
	l.save(t)
	good := l.state(t)
	copyOf := func(t *testing.T) *lab {
		c := &lab{script: l.script, store: warm.Store{Dir: t.TempDir()}}
		must(t, exec.CommandContext(t.Context(), "cp", "-a", "--sparse=always", good, c.store.Dir).Run())
		return c
	}
	t.Run("a copy is as good", func(t *testing.T) {
		c := copyOf(t)
		g, said := c.machine(t, warm.Options{Mode: warm.Require})
		succeed(t, g, "true")
		said.find(t, "started warm, ")
	})
	for _, file := range []string{"ram", "disk.qcow2", "devices", "manifest.json"} {
		t.Run(file, func(t *testing.T) {
			c := copyOf(t)
			path := filepath.Join(c.state(t), file)
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			info, err := f.Stat()
			must(t, err)
			var b [1]byte
			_, err = f.ReadAt(b[:], info.Size()/2)
			must(t, err)
			b[0] ^= 1
			_, err = f.WriteAt(b[:], info.Size()/2)
			must(t, err)
			c.refused(t, file+" is damaged: its c")
		})
	}
	t.Run("boots instead", func(t *testing.T) {
		c := copyOf(t)
		must(t, os.Truncate(filepath.Join(c.state(t), "ram"), 1<<20))
		g, said := c.machine(t, warm.Options{Mode: warm.Auto})
		succeed(t, g, "true")
		if line := said.find(t, "starts cold: "); !strings.Contains(line, "ram has 1048576 bytes, and had ") {
			t.Error(line)
		}
		if entries, err := os.ReadDir(c.store.Dir); err != nil || len(entries) > 0 {
			t.Errorf("the damaged state stays: %v %v", entries, err)
		}
	})
	t.Run("another start script", func(t *testing.T) {
		text, err := os.ReadFile(l.script)
		must(t, err)
		for what, test := range map[string]struct{ old, new, reason string }{
			"memory":  {"-m ", "-m 1", "differs in: start script"},
			"comment": {"\nset -e", "\n# something\nset -e", "differs in: start script"},
		} {
			t.Run(what, func(t *testing.T) {
				c := &lab{script: filepath.Join(t.TempDir(), "run-machine-vm"), store: l.store}
				must(t, os.WriteFile(c.script, bytes.Replace(text, []byte(test.old), []byte(test.new), 1), 0o755))
				c.refused(t, test.reason)
			})
		}
	})
	t.Run("a file of the start script's", func(t *testing.T) {
		initrd := filepath.Join(filepath.Dir(l.script), "initrd")
		now := time.Now()
		must(t, os.Chtimes(initrd, now, now))
		l.refused(t, "files that QEMU was given have changed since it was saved: "+initrd)
	})
}

// Machines from one state do not see each other, and what they do leaves it as it
// was; removing it under them does them no harm.
func TestClones(t *testing.T) {
	l := newLab(t, "mini")
	l.save(t)
	const n = 4
	guests := make([]*machine.Guest, n)
	var wg sync.WaitGroup
	failed := make([]error, n)
	for i := range n {
		guests[i], _ = l.machine(t, warm.Options{Mode: warm.Require})
		wg.Go(func() {
			ctx := t.Context()
			_, failed[i] = guests[i].Succeed(ctx, []string{fmt.Sprintf("echo %d >/root/x; sync; dd if=/dev/urandom of=/dev/shm/y bs=1M count=20", i)}, time.Minute)
		})
	}
	wg.Wait()
	must(t, errors.Join(failed...))
	must(t, os.RemoveAll(l.state(t)+"/../"+filepath.Base(l.state(t))))
	for i, g := range guests {
		if out := succeed(t, g, "echo 3 >/proc/sys/vm/drop_caches; cat /root/x; md5sum </dev/shm/y >/dev/null"); out != fmt.Sprintln(i) {
			t.Errorf("machine %d has %q", i, out)
		}
		checkClock(t, g)
	}
}

// A state stays as long as a machine has started from it, which may boot from its
// disk once more.
func TestInUse(t *testing.T) {
	l := newLab(t, "mini")
	l.save(t)
	g, _ := l.machine(t, warm.Options{Mode: warm.Require})
	succeed(t, g, "echo kept >/root/x; sync")
	collect := func(want int) {
		t.Helper()
		removed, err := l.store.Collect(warm.Limits{})
		must(t, err)
		if len(removed) != want {
			t.Errorf("%d states were removed, not %d", len(removed), want)
		}
	}
	collect(0)
	must(t, g.Crash(t.Context()))
	collect(0)
	if out := succeed(t, g, "cat /root/x; cut -d. -f1 /proc/uptime"); !strings.HasPrefix(out, "kept\n") {
		t.Errorf("after a crash: %q", out)
	}
	must(t, g.Machine.Release())
	must(t, g.Starter.(*warm.Starter).Close())
	collect(1)
}

// Two who save at once do not get into each other's way.
func TestTwoSavers(t *testing.T) {
	l := newLab(t, "mini")
	var wg sync.WaitGroup
	failed := make([]error, 2)
	for i := range failed {
		g, _ := l.machine(t, warm.Options{Mode: warm.Require, Save: true})
		wg.Go(func() { _, failed[i] = g.Succeed(t.Context(), []string{"true"}, time.Minute) })
	}
	wg.Wait()
	must(t, errors.Join(failed...))
	l.state(t) // there is one
}

// saverEnv has this program save a machine, see TestKilledSaver.
const saverEnv = "WARM_TEST_SAVER"

// Whoever is killed while saving leaves no state, and nothing that stays.
func TestKilledSaver(t *testing.T) {
	if dir := os.Getenv(saverEnv); dir != "" {
		l := &lab{script: filepath.Join(dir, "run-machine-vm"), store: warm.Store{Dir: filepath.Join(dir, "states")}}
		g, _ := l.machine(t, warm.Options{Mode: warm.Require, Save: true})
		must(t, g.Start(t.Context(), g.Boot))
		return
	}
	l := newLab(t, "mini")
	drafts := func() []string {
		found, err := filepath.Glob(filepath.Join(l.store.Dir, ".draft-*"))
		must(t, err)
		return found
	}
	for _, test := range []struct {
		file  string
		after time.Duration // it is there
	}{{"ram", 0}, {"ram", time.Second}, {"devices", 0}, {"devices", 50 * time.Millisecond}, {"devices", 100 * time.Millisecond}} {
		t.Run(fmt.Sprintf("%s/%v", test.file, test.after), func(t *testing.T) {
			old := drafts() // of those who were killed before
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilledSaver$")
			cmd.Env = append(os.Environ(), saverEnv+"="+filepath.Dir(l.script))
			must(t, cmd.Start())
			killed := false
			for !killed && ctx.Err() == nil {
				for _, d := range drafts() {
					if _, err := os.Stat(filepath.Join(d, test.file)); err == nil && !slices.Contains(old, d) {
						time.Sleep(test.after)
						must(t, cmd.Process.Kill())
						killed = true
					}
				}
				time.Sleep(time.Millisecond)
			}
			err := cmd.Wait()
			var exit *exec.ExitError
			if !killed || !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("it was not killed: %v", err)
			}
			g, _ := l.machine(t, warm.Options{Mode: warm.Require})
			err = g.Start(t.Context(), g.Boot)
			if err == nil { // the kill came after the last moment
				succeed(t, g, "true")
				must(t, os.RemoveAll(l.state(t)))
			} else if !strings.Contains(err.Error(), "no saved state") {
				t.Error(err)
			}
		})
	}
	l.save(t)
	if left := drafts(); len(left) > 0 {
		t.Errorf("%q are left", left)
	}
}

// Without space to save, machines boot.
func TestNoSpace(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("only root can mount")
	}
	l := newLab(t, "mini")
	must(t, os.MkdirAll(l.store.Dir, 0o700))
	mount := func(t *testing.T, size string) {
		must(t, unix.Mount("warm", l.store.Dir, "tmpfs", 0, "size="+size))
		t.Cleanup(func() { must(t, unix.Unmount(l.store.Dir, unix.MNT_DETACH)) })
	}
	t.Run("from the beginning", func(t *testing.T) {
		mount(t, "100m")
		g, said := l.machine(t, warm.Options{Mode: warm.Auto, Save: true})
		succeed(t, g, "true")
		if line := said.find(t, "starts cold: "); !strings.Contains(line, "MiB free") {
			t.Error(line)
		}
	})
	t.Run("while it boots", func(t *testing.T) {
		mount(t, "600m")
		g, said := l.machine(t, warm.Options{Mode: warm.Auto, Save: true})
		done := make(chan error, 1)
		go func() { _, err := g.Succeed(t.Context(), []string{"true"}, time.Minute); done <- err }()
		for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(time.Millisecond) {
			if found, _ := filepath.Glob(filepath.Join(l.store.Dir, ".draft-*", "ram")); len(found) > 0 {
				break
			}
		}
		f, err := os.Create(filepath.Join(l.store.Dir, "full"))
		must(t, err)
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 1<<20))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		must(t, <-done)
		if line := said.find(t, "starts cold: "); !strings.Contains(line, "no space was left in ") {
			t.Error(line)
		}
		if found, _ := filepath.Glob(filepath.Join(l.store.Dir, ".draft-*")); len(found) > 0 {
			t.Errorf("%q are left", found)
		}
	})
}
