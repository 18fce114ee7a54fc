// Package machinetest is the conformance suite of machines: what the
// operations of a [machine.Guest] do on any backend and in any guest. [Run]
// runs it.
package machinetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/machine"
)

// patience is how long anything may take that works; guests may be emulated on
// busy hosts.
const patience = 2 * time.Minute

// Run runs the suite on the guest that boot returns, a new machine each time
// it is called. Its bash must have coreutils, a multi-user.target that becomes
// active, and a directory shared with the host. What needs a capability of the
// backend that is not there is skipped.
func Run(t *testing.T, boot func(t *testing.T) *machine.Guest) {
	g := boot(t)
	if !t.Run("life cycle", func(t *testing.T) { lifeCycle(t, g) }) {
		return // nothing else would work
	}
	t.Run("commands", func(t *testing.T) { commands(t, g) })
	t.Run("waits", func(t *testing.T) { waits(t, g) })
	t.Run("units", func(t *testing.T) { units(t, g) })
	t.Run("files", func(t *testing.T) { files(t, g) })
	t.Run("console", func(t *testing.T) { console(t, g) })
	t.Run("terminals", func(t *testing.T) { terminals(t, g) })
	t.Run("screen", func(t *testing.T) { screen(t, g) })
	t.Run("snapshots", func(t *testing.T) { snapshots(t, g) })
	t.Run("power", func(t *testing.T) { power(t, g) })
}

// has returns the machine's capability, and skips the test if it has none.
func has[C any](t *testing.T, g *machine.Guest) C {
	t.Helper()
	c, ok := g.Machine.(C)
	if !ok {
		t.Skipf("machine %q has no %T", g.Machine.Name(), new(C))
	}
	return c
}

// must fails the test at once.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func succeed(t *testing.T, g *machine.Guest, command string) string {
	t.Helper()
	out, err := g.Succeed(t.Context(), []string{command}, 0)
	must(t, err)
	return out
}

// assertion wants err to be an unmet expectation that says text.
func assertion(t *testing.T, err error, text string) {
	t.Helper()
	var a *machine.AssertionError
	if !errors.As(err, &a) || !strings.Contains(a.Message, text) {
		t.Errorf("error %v, want an assertion with %q", err, text)
	}
}

func lifeCycle(t *testing.T, g *machine.Guest) {
	ctx := t.Context()
	if g.Machine.Running() || g.Up() {
		t.Error("up before its start")
	}
	must(t, g.Start(ctx, g.Boot))
	must(t, g.Start(ctx, g.Boot)) // it runs already
	if !g.Machine.Running() {
		t.Error("not running after its start")
	}
	_, err := g.Shell(ctx)
	must(t, err)
	if _, ok := g.Machine.(machine.Connector); ok && !g.Up() {
		t.Error("not up, although its shell has answered")
	}
}

func commands(t *testing.T, g *machine.Guest) {
	ctx := t.Context()
	out, err := g.Succeed(ctx, []string{"echo one", "printf two"}, 0)
	if err != nil || out != "one\ntwo" {
		t.Errorf("%q %v", out, err)
	}
	_, err = g.Succeed(ctx, []string{"exit 3", "touch /tmp/conformance-never"}, 0)
	assertion(t, err, "command `exit 3` failed (exit code 3)")
	succeed(t, g, "test ! -e /tmp/conformance-never")
	out, err = g.Fail(ctx, []string{"echo no; false"}, 0)
	if err != nil || out != "no\n" {
		t.Errorf("%q %v", out, err)
	}
	_, err = g.Fail(ctx, []string{"true"}, 0)
	assertion(t, err, "command `true` unexpectedly succeeded")

	for command, want := range map[string]int{
		"exit 7":            7,
		"false | true":      1, // pipefail
		"false; true":       1, // -e
		": $conformance":    1, // -u
		"kill -KILL $$":     137,
		"no-such-program-x": 127,
	} {
		r, err := g.Execute(ctx, command, patience, true)
		if err != nil || r.Status != want {
			t.Errorf("%s: status %d, %v, want %d", command, r.Status, err, want)
		}
	}
	r, err := g.Execute(ctx, "sleep 600", time.Second, true)
	if err != nil || r.Status != 124 {
		t.Errorf("time-out: status %d, %v", r.Status, err)
	}
	r, err = g.Execute(ctx, `printf 'a\000b\377\n\n'`, patience, true)
	if err != nil || r.Status != 0 || string(r.Stdout) != "a\x00b\xff\n\n" {
		t.Errorf("bytes: %+v %v", r, err)
	}
	quoting := `a'b"c $HOME \n` + "`x` é"
	if out := succeed(t, g, "printf %s "+machine.Quote(quoting)); out != quoting {
		t.Errorf("quoting: %q", out)
	}
	const long = 300000
	if out := succeed(t, g, fmt.Sprintf("head -c %d /dev/zero | tr '\\0' z", long)); len(out) != long {
		t.Errorf("%d bytes of %d", len(out), long)
	}
	_, err = g.Execute(ctx, "touch /tmp/conformance-async", patience, false)
	must(t, err)
	must(t, g.WaitForFile(ctx, "/tmp/conformance-async", patience))
	succeed(t, g, "rm /tmp/conformance-async")
}

func waits(t *testing.T, g *machine.Guest) {
	ctx := t.Context()
	succeed(t, g, "(sleep 0.5; echo there >/tmp/conformance-late) >/dev/null 2>&1 &")
	must(t, g.WaitForFile(ctx, "/tmp/conformance-la*", patience))
	out, err := g.WaitUntilSucceeds(ctx, "grep there /tmp/conformance-late", patience)
	if err != nil || out != "there\n" {
		t.Errorf("%q %v", out, err)
	}
	succeed(t, g, "(sleep 0.5; rm /tmp/conformance-late) >/dev/null 2>&1 &")
	out, err = g.WaitUntilFails(ctx, "cat /tmp/conformance-late 2>/dev/null", patience)
	if err != nil || out != "" {
		t.Errorf("%q %v", out, err)
	}
	for name, wait := range map[string]func(context.Context, time.Duration) error{
		"file": func(ctx context.Context, d time.Duration) error { return g.WaitForFile(ctx, "/nonexistent", d) },
		"port": func(ctx context.Context, d time.Duration) error { return g.WaitForOpenPort(ctx, "localhost", 1, d) },
		"success": func(ctx context.Context, d time.Duration) error {
			_, err := g.WaitUntilSucceeds(ctx, "false", d)
			return err
		},
		"failure": func(ctx context.Context, d time.Duration) error {
			_, err := g.WaitUntilFails(ctx, "true", d)
			return err
		},
		"socket": func(ctx context.Context, d time.Duration) error {
			return g.WaitForOpenUnixSocket(ctx, "/nonexistent", false, d)
		},
	} {
		assertion(t, wait(ctx, 0), "(timeout=0.0)")
		assertion(t, wait(ctx, 300*time.Millisecond), "action timed out after ")
		cause := errors.New("enough")
		short, cancel := context.WithTimeoutCause(ctx, 100*time.Millisecond, cause)
		if err := wait(short, patience); !errors.Is(err, cause) {
			t.Errorf("%s: %v, want the end of its context", name, err)
		}
		cancel()
	}
	must(t, g.WaitForClosedPort(ctx, "localhost", 1, patience))
	begin := time.Now()
	must(t, g.Sleep(ctx, 200*time.Millisecond))
	if took := time.Since(begin); took < 150*time.Millisecond {
		t.Errorf("slept for %v", took)
	}
}

func units(t *testing.T, g *machine.Guest) {
	ctx := t.Context()
	const unit = "multi-user.target"
	must(t, g.WaitForUnit(ctx, unit, "", patience))
	info, err := g.UnitInfo(ctx, unit, "")
	if err != nil || info["Id"] != unit || info["ActiveState"] != "active" {
		t.Errorf("%v %v", info, err)
	}
	state, err := g.UnitProperty(ctx, unit, "ActiveState", "")
	if err != nil || state != "active" {
		t.Errorf("%q %v", state, err)
	}
	must(t, g.RequireUnitState(ctx, unit, "active"))
	assertion(t, g.RequireUnitState(ctx, unit, "failed"),
		"Expected unit 'multi-user.target' to to be in state 'failed' but it is in state 'active'")
	assertion(t, g.WaitForUnit(ctx, "no-such.service", "", patience),
		`unit "no-such.service" is inactive and there are no pending jobs`)
}

func files(t *testing.T, g *machine.Guest) {
	ctx := t.Context()
	dir := t.TempDir()
	content := make([]byte, 300000)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	must(t, os.MkdirAll(filepath.Join(dir, "tree", "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "tree", "sub", "data"), content, 0o640))
	must(t, os.WriteFile(filepath.Join(dir, "tree", "program"), []byte("#!/bin/sh\necho it runs\n"), 0o755))

	must(t, g.CopyFromHost(ctx, dir, "tree", "/tmp/conformance/copy"))
	if out := succeed(t, g, "/tmp/conformance/copy/program"); out != "it runs\n" {
		t.Errorf("%q", out)
	}
	sh, err := g.Shell(ctx)
	must(t, err)
	if _, ok := sh.(machine.Streamer); ok {
		viaShell(t, g, dir)
	}
	must(t, g.CopyFromMachine(ctx, "/tmp/conformance/copy", "back"))
	back, err := os.ReadFile(filepath.Join(g.Machine.Dirs().Out, "back", "copy", "sub", "data"))
	if err != nil || !bytes.Equal(back, content) {
		t.Errorf("%d bytes came back, %v", len(back), err)
	}
	if _, err := g.Succeed(ctx, []string{"rm -r /tmp/conformance"}, 0); err != nil {
		t.Error(err)
	}
	if err := g.CopyFromHost(ctx, dir, "no-such-file", "/tmp/x"); err == nil || !strings.Contains(err.Error(), "no-such-file") {
		t.Error(err)
	}
	if err := g.CopyFromMachine(ctx, "/no-such-file", ""); err == nil || !strings.Contains(err.Error(), "no-such-file") {
		t.Error(err)
	}
	if left, err := os.ReadDir(g.Machine.Dirs().Shared); err != nil || len(left) > 0 {
		t.Errorf("%v is left in the shared directory, %v", left, err)
	}
}

// viaShell copies tree/sub/data of dir to where a copy of it is already.
func viaShell(t *testing.T, g *machine.Guest, dir string) {
	t.Helper()
	ctx := t.Context()
	must(t, g.CopyFromHostViaShell(ctx, dir, "tree/sub/data", "/tmp/conformance/new/data"))
	succeed(t, g, "cmp /tmp/conformance/new/data /tmp/conformance/copy/sub/data")
	must(t, os.WriteFile(filepath.Join(dir, "empty"), nil, 0o644))
	must(t, g.CopyFromHostViaShell(ctx, dir, filepath.Join(dir, "empty"), "/tmp/conformance/new/data"))
	succeed(t, g, "test ! -s /tmp/conformance/new/data")
	if err := g.CopyFromHostViaShell(ctx, dir, "no-such-file", "/tmp/x"); err == nil || !strings.Contains(err.Error(), "no-such-file") {
		t.Error(err)
	}
}

func console(t *testing.T, g *machine.Guest) {
	has[machine.ConsoleFollower](t, g)
	ctx := t.Context()
	const port = "/dev/ttyS0"
	succeed(t, g, "echo conformance 1 >"+port+"; echo conformance 2 >"+port)
	must(t, g.WaitForConsoleText(ctx, `conformance (?=1)`, patience))
	must(t, g.WaitForConsoleText(ctx, `conformance \d`, patience))
	assertion(t, g.WaitForConsoleText(ctx, `conformance \d`, time.Second), "action timed out after ")
	if log := g.ConsoleLog(); !strings.Contains(log, "conformance 1\n") {
		t.Errorf("the console is not in its log:\n%s", log)
	}
	if err := g.WaitForConsoleText(ctx, "(", patience); err == nil || !strings.Contains(err.Error(), "regular expression") {
		t.Error(err)
	}
}

func terminals(t *testing.T, g *machine.Guest) {
	ctx := t.Context()
	r, err := g.Execute(ctx, "test -e /dev/vcs1", patience, true)
	must(t, err)
	if r.Status != 0 {
		t.Skip("the guest has no virtual terminals")
	}
	const clear = `printf '\033[H\033[2J' >/dev/tty1`
	succeed(t, g, clear+"; echo first line >/dev/tty1; printf 'login: \\333' >/dev/tty1")
	text, err := g.TTYText(ctx, "1")
	if err != nil || !strings.HasPrefix(text, "first line  ") || !strings.Contains(text, "\nlogin: ") {
		t.Errorf("%q %v", text, err)
	}
	must(t, g.WaitUntilTTYMatches(ctx, "1", `first line +\nlogin:`, patience))
	succeed(t, g, "(sleep 0.5; echo more >/dev/tty1) >/dev/null 2>&1 &")
	begin := time.Now()
	must(t, g.WaitUntilTTYMatches(ctx, "1", `more`, patience))
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("a change of the terminal was noticed after %v", took)
	}
	assertion(t, g.WaitUntilTTYMatches(ctx, "1", "never", 300*time.Millisecond), "(timeout=0.3)")
	assertion(t, g.WaitUntilTTYMatches(ctx, "1", "never", 0), "(timeout=0.0)")
	succeed(t, g, clear)
}

func screen(t *testing.T, g *machine.Guest) {
	has[machine.Screenshotter](t, g)
	file, err := g.Screenshot(t.Context(), "", "conformance")
	must(t, err)
	if want := filepath.Join(g.Machine.Dirs().Out, "conformance.png"); file != want {
		t.Errorf("%s, want %s", file, want)
	}
	data, err := os.ReadFile(file)
	must(t, err)
	if _, err := png.Decode(bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
}

// power ends the machine in all the ways that there are.
func power(t *testing.T, g *machine.Guest) {
	has[machine.Crasher](t, g)
	ctx := t.Context()
	must(t, g.Crash(ctx))
	if g.Machine.Running() || g.Up() {
		t.Error("running after a crash")
	}
	must(t, g.Crash(ctx)) // it does not run
	must(t, g.Shutdown(ctx))
	must(t, g.WaitForShutdown(ctx))

	if out := succeed(t, g, "echo booted again"); out != "booted again\n" {
		t.Errorf("%q", out)
	}
	must(t, g.Shutdown(ctx))
	if g.Machine.Running() {
		t.Error("running after it was shut down")
	}
	must(t, g.Machine.Release())
	must(t, g.Machine.Release())
}
