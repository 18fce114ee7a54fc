package suite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"vm-prebuild/testrun/reaper"
)

// patience is how long a test waits for what happens at once on an idle machine.
const patience = 30 * time.Second

// fakeDriver writes a driver, a shell script with the given body.
func fakeDriver(t *testing.T, body string) Test {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nixos-test-driver")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return Test{Driver: path, GlobalTimeoutSeconds: 3600}
}

// alive makes a named pipe that processes hold open to show that they live.
// lines carries what they write and is closed when the last of them is gone.
func alive(t *testing.T) (path string, lines <-chan string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "alive")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 16)
	go func() {
		defer close(out)
		f, err := os.Open(path)
		if err != nil {
			return
		}
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			out <- s.Text()
		}
	}()
	return path, out
}

// receive waits for a line, or with want == "" for the end.
func receive(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	select {
	case got, ok := <-lines:
		if got != want || ok != (want != "") {
			t.Fatalf("got %q, want %q", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("waited %v for %q", patience, want)
	}
}

func manifestOf(tests map[string]Test) *Manifest {
	return &Manifest{Version: 1, System: "x86_64-linux", ClosureInfo: "/c", Tests: tests}
}

func TestRunVerdicts(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	missing := Test{Driver: "/nonexistent/bin/nixos-test-driver", GlobalTimeoutSeconds: 1}
	m := manifestOf(map[string]Test{
		"passes": fakeDriver(t, `[ "$1" = -o ] && [ "$2" = "$PWD" ] && [ -d "$TMPDIR" ] && [ "$TMPDIR" = "$XDG_RUNTIME_DIR" ] || exit 9
			echo out; echo err >&2; echo x > result.txt; echo x > $TMPDIR/x`),
		"fails":    fakeDriver(t, `echo "!!! Test failed"; exit 1`),
		"exits-42": fakeDriver(t, "exit 42"),
		"infra":    fakeDriver(t, "exit 3"),
		"config":   fakeDriver(t, "exit 2"),
		"timeout":  fakeDriver(t, "exit 124"),
		"pytime":   fakeDriver(t, "kill -TERM $$"),
		"segv":     fakeDriver(t, "kill -SEGV $$"),
		"missing":  missing,
	})
	out := t.TempDir()
	report, err := Run(t.Context(), m, m.Names(), Options{OutputDir: out})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]struct {
		status Status
		code   int
		reason string
	}{
		"passes":   {Passed, 0, ""},
		"fails":    {Failed, 1, "the test script failed (exit code 1)"},
		"exits-42": {Failed, 42, "the test script failed (exit code 42)"},
		"infra":    {Error, 3, "a machine or something else"},
		"config":   {Error, 2, "refused its configuration"},
		"timeout":  {TimedOut, 124, "global time-out of 1h0m0s"},
		"pytime":   {TimedOut, -1, "global time-out of 1h0m0s"},
		"segv":     {Error, -1, "the driver was ended by signal: segmentation fault"},
		"missing":  {Error, -1, "no such file or directory\nhint: is the test's closure in this Nix store?"},
	}
	if len(report.Results) != len(want) {
		t.Fatalf("%d results, want %d", len(report.Results), len(want))
	}
	for _, r := range report.Results {
		w := want[r.Name]
		if r.Status != w.status || r.ExitCode != w.code || !strings.Contains(r.Reason, w.reason) {
			t.Errorf("%+v, want %+v", r, w)
		}
	}
	log, err := os.ReadFile(filepath.Join(out, "passes", "log"))
	if err != nil || string(log) != "out\nerr\n" {
		t.Errorf("log %q, %v", log, err)
	}
	for _, r := range report.Results {
		if r.Name == "fails" && (len(r.Tail) != 1 || r.Tail[0] != "!!! Test failed") {
			t.Errorf("tail %q", r.Tail)
		}
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) != 0 {
		t.Errorf("runtime directories left: %v, %v", left, err)
	}
}

func TestRunReplacesOnlyItsOwnResults(t *testing.T) {
	m := manifestOf(map[string]Test{"a": fakeDriver(t, "exit 0")})
	out := t.TempDir()
	for range 2 {
		report, err := Run(t.Context(), m, []string{"a"}, Options{OutputDir: out})
		if err != nil || report.Count(Passed) != 1 {
			t.Fatalf("%+v, %v", report, err)
		}
		if err := os.WriteFile(filepath.Join(out, "a", "old"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(out, "a", "log")); err != nil {
		t.Fatal(err)
	}
	report, err := Run(t.Context(), m, []string{"a"}, Options{OutputDir: out})
	if err != nil || report.Count(Error) != 1 || !strings.Contains(report.Results[0].Reason, "is in the way") {
		t.Fatalf("%+v, %v", report, err)
	}
}

// TestRunHanging lets drivers hang in three ways. None may outlive its deadline,
// and nor may a child that it left behind.
func TestRunHanging(t *testing.T) {
	for name, body := range map[string]string{
		"hangs":           `exec 9>"$F"; echo up >&9; sleep 1000`,
		"ignores SIGTERM": `trap "" TERM; exec 9>"$F"; echo up >&9; while :; do sleep 1000; done`,
		"leaves children": `trap "" TERM; exec 9>"$F"; sleep 1000 & sleep 1000 & echo up >&9; trap - TERM; wait`,
	} {
		t.Run(name, func(t *testing.T) {
			fifo, lines := alive(t)
			test := fakeDriver(t, fmt.Sprintf("F=%q\n%s", fifo, body))
			test.GlobalTimeoutSeconds = 1
			m := manifestOf(map[string]Test{"t": test})
			report, err := Run(t.Context(), m, []string{"t"},
				Options{OutputDir: t.TempDir(), Margin: time.Millisecond, Grace: 100 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			receive(t, lines, "up")
			receive(t, lines, "")
			if r := report.Results[0]; r.Status != TimedOut || r.Reason != "the driver did not end within 1.001s and was killed" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestRunSweeps lets a driver end well but leave a child.
func TestRunSweeps(t *testing.T) {
	fifo, lines := alive(t)
	m := manifestOf(map[string]Test{"t": fakeDriver(t, fmt.Sprintf(`exec 9>%q; echo up >&9; sleep 1000 & exit 0`, fifo))})
	report, err := Run(t.Context(), m, []string{"t"}, Options{OutputDir: t.TempDir()})
	if err != nil || report.Count(Passed) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	receive(t, lines, "up")
	receive(t, lines, "")
}

// TestRunInterrupted cancels a run; the driver gets its chance to clean up.
func TestRunInterrupted(t *testing.T) {
	fifo, lines := alive(t)
	m := manifestOf(map[string]Test{
		"a": fakeDriver(t, fmt.Sprintf(`trap 'echo cleaned >&9; kill $!; exit 1' TERM; exec 9>%q; echo up >&9; sleep 1000 & wait`, fifo)),
		"b": fakeDriver(t, "exit 0"),
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() {
		receive(t, lines, "up")
		cancel(errors.New("enough"))
	}()
	report, err := Run(ctx, m, []string{"a", "b"}, Options{OutputDir: t.TempDir(), Jobs: 1, Grace: patience})
	if err == nil || err.Error() != "enough" {
		t.Errorf("error %v", err)
	}
	if len(report.Results) != 1 || report.Results[0].Status != Error || report.Results[0].Reason != "enough" {
		t.Errorf("%+v", report.Results)
	}
	receive(t, lines, "cleaned")
	receive(t, lines, "")
}

// TestMain is also the run that TestKilled kills, and its supervisor.
func TestMain(m *testing.M) {
	reaper.Main()
	if driver := os.Getenv("SUITE_TEST_DRIVER"); driver != "" {
		manifest := manifestOf(map[string]Test{"t": {Driver: driver, GlobalTimeoutSeconds: 3600}})
		_, err := Run(context.Background(), manifest, []string{"t"}, Options{OutputDir: os.Getenv("SUITE_TEST_OUT")})
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestKilled kills a run with SIGKILL, which it cannot act upon; its driver has
// to die all the same, and nothing may be left in TMPDIR.
func TestKilled(t *testing.T) {
	fifo, lines := alive(t)
	test := fakeDriver(t, fmt.Sprintf(`exec 9>%q; echo up >&9; exec sleep 1000`, fifo))
	tmp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "SUITE_TEST_DRIVER="+test.Driver, "SUITE_TEST_OUT="+t.TempDir(), "TMPDIR="+tmp)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	receive(t, lines, "up")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	receive(t, lines, "")
	// The supervisor removes the runtime directory after it has killed.
	for deadline := time.Now().Add(patience); ; {
		left, err := os.ReadDir(tmp)
		if err == nil && len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left in TMPDIR: %v, %v", left, err)
		}
		runtime.Gosched()
	}
}
