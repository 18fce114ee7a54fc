package testrun

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/report"
)

// remains is a machine as a failed test leaves it.
type remains struct {
	machine.Machine
	name    string
	running bool
	console []string
	shell   func(ctx context.Context) (machine.Result, error)
}

func (r *remains) Name() string      { return r.name }
func (r *remains) Running() bool     { return r.running }
func (r *remains) Console() []string { return r.console }

func (r *remains) Shell(context.Context) (machine.Shell, error) { return r, nil }

func (r *remains) Run(ctx context.Context, _ string, _ time.Duration) (machine.Result, error) {
	return r.shell(ctx)
}

func (r *remains) Send(context.Context, string, time.Duration) error { return nil }

func (r *remains) Screenshot(ctx context.Context, file string) error {
	if r.shell == nil {
		return errors.New("no screen")
	}
	if _, err := r.shell(ctx); err != nil {
		return &machine.Error{Machine: r.name, Err: err, Console: []string{"a console line"}}
	}
	return os.WriteFile(file, []byte("\x89PNG\r\n\x1a\n"), 0o644)
}

// hung does not answer, as a guest does whose QEMU has been stopped.
func hung(ctx context.Context) (machine.Result, error) {
	<-ctx.Done()
	return machine.Result{}, context.Cause(ctx)
}

func answers(context.Context) (machine.Result, error) {
	return machine.Result{Stdout: []byte("a line of the journal\n")}, nil
}

// autopsy has the post mortem of machines that were started, in out, and
// returns the log.
func autopsy(t *testing.T, out string, machines ...*remains) string {
	t.Helper()
	var log bytes.Buffer
	page := report.NewPage("x")
	bus := event.NewBus(report.NewTerminal(&log, event.Info, false, func() bool { return true }), page)
	d := &driver{cfg: Config{OutDir: out}, bus: bus, machines: map[string]machine.Machine{}}
	for _, m := range machines {
		d.machines[m.name] = m
		if m.console != nil {
			bus.Emit(event.MachineStarted{Machine: m.name, CommandLine: []string{"/bin/qemu", "-name", "it's " + m.name}})
		}
	}
	d.postMortem(t.Context(), page)
	bus.Emit(event.TestFinished{Failure: "failed"})
	if err := bus.Close(); err != nil {
		t.Error(err)
	}
	return log.String()
}

func TestPostMortem(t *testing.T) {
	out := t.TempDir()
	taken := filepath.Join(out, "nixos-test-run-failure")
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	log := autopsy(t, out,
		&remains{name: "web", running: true, console: []string{"one", "two"}, shell: answers},
		&remains{name: "stopped", running: true, console: []string{"stopped"}, shell: hung},
		&remains{name: "dead", console: []string{"panic"}},
		&remains{name: "never"},
	)
	if d := time.Since(begin); d > 30*time.Second {
		t.Errorf("it took %v", d)
	}
	dir := taken + "-2"
	for file, want := range map[string]string{
		"web/console.log":      "one\ntwo\n",
		"web/qemu-command":     "/bin/qemu \\\n  -name 'it'\\''s web'\n",
		"web/journal.log":      "a line of the journal\n",
		"web/screenshot.png":   "\x89PNG\r\n\x1a\n",
		"stopped/console.log":  "stopped\n",
		"dead/console.log":     "panic\n",
		"dead/qemu-command":    "/bin/qemu \\\n  -name 'it'\\''s dead'\n",
		"stopped/qemu-command": "/bin/qemu \\\n  -name 'it'\\''s stopped'\n",
	} {
		if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", file, got, err, want)
		}
	}
	for _, missing := range []string{"never", "stopped/journal.log", "stopped/screenshot.png", "dead/journal.log", "../nixos-test-run-failure/web"} {
		if _, err := os.Stat(filepath.Join(dir, missing)); err == nil {
			t.Errorf("%s is there", missing)
		}
	}
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil || !bytes.Contains(page, []byte(`href="./web/journal.log"`)) || !bytes.Contains(page, []byte("a line of the journal")) {
		t.Errorf("%v\n%s", err, page)
	}
	for _, want := range []string{"machine states and report of the failure: " + dir + "\n", "stopped: no journal: no answer within 3s\n", "stopped: no screenshot: no answer within 3s\n"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, "dead:") || strings.Contains(log, "web:") {
		t.Errorf("the log has too much:\n%s", log)
	}
}

// TestPostMortemOfNothing: a test whose machines never started leaves nothing.
func TestPostMortemOfNothing(t *testing.T) {
	out := t.TempDir()
	log := autopsy(t, out, &remains{name: "never"})
	if files, _ := os.ReadDir(out); len(files) > 0 || log != "" {
		t.Errorf("%v, %s", files, log)
	}
}

func TestPostMortemUnwritable(t *testing.T) {
	log := autopsy(t, filepath.Join(t.TempDir(), "missing"), &remains{name: "web", console: []string{"x"}})
	if !strings.Contains(log, "the machines' states are not collected") {
		t.Error(log)
	}
}

func TestWriteConsoleKeepsTheEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "console.log")
	lines := make([]string, 20)
	for i := range lines {
		lines[i] = strings.Repeat("x", 1<<20)
	}
	lines[19] = "the end"
	if err := writeConsole(file, lines); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil || len(text) > maxConsoleFile+100 || !bytes.HasPrefix(text, []byte("(4 earlier lines are left out)\n")) || !bytes.HasSuffix(text, []byte("\nthe end\n")) {
		t.Errorf("%d bytes, %v, %.60q", len(text), err, text)
	}
}

// TestUnwritableReport: it is found before anything is set up.
func TestUnwritableReport(t *testing.T) {
	dir := runtimeDir(t)
	script := filepath.Join(dir, "script.py")
	if err := os.WriteFile(script, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for name, o := range map[string]Options{
		"XML log":      {XMLLog: filepath.Join(missing, "log.xml")},
		"JUnit report": {JUnit: "missing/junit.xml"},
		"JSON lines":   {JSONL: "missing/log.jsonl"},
		"HTML report":  {HTML: "missing/report.html", JUnit: "junit.xml"},
		"directory of": {SerialDir: "missing/consoles"},
	} {
		var log bytes.Buffer
		o.Log = &log
		err := Run(t.Context(), Config{ScriptPath: script, OutDir: dir}, o)
		var config *ConfigError
		if !errors.As(err, &config) || !strings.HasPrefix(err.Error(), name) || !strings.Contains(err.Error(), "hint: create the directory "+missing) {
			t.Errorf("%s: %v", name, err)
		}
		if log.Len() > 0 {
			t.Errorf("%s: %s", name, &log)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

func TestTitle(t *testing.T) {
	for want, cfg := range map[string]Config{
		"nginx":         {OutDir: "/nix/store/0c0p0w7zy8gzxd6s0yg7q1a5r2i5d0xk-vm-test-run-nginx", ScriptPath: "/a.py"},
		"boot-uefi":     {OutDir: "/tmp", ScriptPath: "/nix/store/0c0p0w7zy8gzxd6s0yg7q1a5r2i5d0xk-nixos-test-driver-boot-uefi/test-script"},
		"mine.py":       {OutDir: "/tmp", ScriptPath: "/home/me/mine.py"},
		"Test of a, b":  {ScriptPath: "/nix/store/0c0p0w7zy8gzxd6s0yg7q1a5r2i5d0xk-test-script", Machines: []MachineConfig{{Name: "a"}, {Name: "b"}}},
		"Test of alone": {Machines: []MachineConfig{{Name: "alone"}}},
	} {
		if got := title(cfg); got != want {
			t.Errorf("%v: %q, want %q", cfg, got, want)
		}
	}
}
