package machinetest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/machine"
)

// snapshots saves the machine and puts it back, which is nothing that the guest
// should notice but by its clock.
func snapshots(t *testing.T, g *machine.Guest) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	succeed := func(t *testing.T, command string) string {
		t.Helper()
		out, err := g.Succeed(ctx, []string{command}, patience)
		must(t, err)
		return out
	}
	if g.Snapshots == nil {
		t.Skip("nothing saves this machine")
	}
	var unsavable *machine.UnsavableError
	if err := g.Save(ctx, "first"); errors.As(err, &unsavable) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}

	// restored is what there is to a machine that has just been put back.
	random := map[string]bool{}
	restored := func(t *testing.T) {
		t.Helper()
		before := time.Now()
		now, err := strconv.ParseFloat(strings.TrimSpace(succeed(t, "echo $EPOCHREALTIME")), 64)
		must(t, err)
		if at := time.UnixMicro(int64(now * 1e6)); at.Before(before.Add(-100*time.Millisecond)) || at.After(time.Now().Add(100*time.Millisecond)) {
			t.Errorf("the guest's clock says %v, and it is %v", at, before)
		}
		number := succeed(t, "head -c 16 /dev/urandom | base64")
		if random[number] {
			t.Errorf("random number %s once more", number)
		}
		random[number] = true
		shared := filepath.Join(g.Machine.Dirs().Shared, "of-host")
		must(t, os.WriteFile(shared, []byte(number), 0o644))
		if out := succeed(t, "cat /tmp/shared/of-host"); out != number {
			t.Errorf("the shared directory has %q", out)
		}
	}

	t.Run("save", func(t *testing.T) { restored(t) })
	t.Run("restore", func(t *testing.T) {
		succeed(t, "echo first | tee /root/snapshot > /tmp/snapshot; sync")
		must(t, g.Save(ctx, "first"))
		console := g.Machine.Console()
		var took []time.Duration
		for range 5 {
			succeed(t, "echo other | tee /root/snapshot > /tmp/snapshot; sync; echo late > /dev/console")
			begin := time.Now()
			must(t, g.Restore(ctx, "first"))
			took = append(took, time.Since(begin))
			succeed(t, "sync; echo 3 > /proc/sys/vm/drop_caches")
			if out := succeed(t, "cat /root/snapshot /tmp/snapshot"); out != "first\nfirst\n" {
				t.Errorf("the files have %q", out)
			}
			restored(t)
			if now := g.Machine.Console(); slices.Contains(now[len(console):], "late") {
				t.Errorf("the console has %q behind what it had", now[len(console):])
			}
		}
		begin := time.Now()
		must(t, g.Save(ctx, "first"))
		slices.Sort(took)
		t.Logf("saved in %v; restored in %v at the median, %v to %v", time.Since(begin), took[len(took)/2], took[0], took[len(took)-1])
	})
	t.Run("long outputs and inputs", func(t *testing.T) {
		succeed(t, "seq 10000000 > /tmp/long & sleep 0.1; echo begun") // goes on after the save
		must(t, g.Save(ctx, "second"))
		for range 2 {
			must(t, g.Restore(ctx, "second"))
			if n := len(succeed(t, "seq 300000")); n != 1988895 {
				t.Errorf("an output has %d bytes", n)
			}
			text := bytes.Repeat([]byte("0123456789"), 100000)
			file := filepath.Join(t.TempDir(), "input")
			must(t, os.WriteFile(file, text, 0o644))
			must(t, g.CopyFromHostViaShell(ctx, t.TempDir(), file, "/tmp/input"))
			if out := succeed(t, "wc -c < /tmp/input"); strings.TrimSpace(out) != "1000000" {
				t.Errorf("an input has %s bytes", out)
			}
		}
		must(t, g.Restore(ctx, "first"))
	})
	t.Run("a shell that does not answer", func(t *testing.T) {
		_, err := g.Execute(ctx, "sleep 1000", 0, false)
		must(t, err)
		must(t, g.Restore(ctx, "first"))
		restored(t)
	})
	t.Run("unknown", func(t *testing.T) {
		var none *machine.NoSnapshotError
		if err := g.Restore(ctx, "third"); !errors.As(err, &none) || none.Name != "third" {
			t.Errorf("error %v", err)
		}
		must(t, g.Snapshots.Drop(ctx, "first", g))
		if err := g.Restore(ctx, "first"); !errors.As(err, &none) {
			t.Errorf("error %v", err)
		}
		restored(t)
	})
}
