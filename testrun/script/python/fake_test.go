package python_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script"
)

// transcript is a file to which the interpreter and everybody else write, so
// that it shows the order in which things happened.
type transcript struct {
	file *os.File
	mu   sync.Mutex
}

func newTranscript(t testing.TB) *transcript {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(t.TempDir(), "transcript"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &transcript{file: file}
}

func (tr *transcript) printf(format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	fmt.Fprintf(tr.file, format+"\n", args...)
}

var (
	elapsed = regexp.MustCompile(`((?:after|last:) )\d+\.\d\d|("timeout":)59\d\.\d+`)
	carets  = regexp.MustCompile(`(?m)^(!!! )?[ ~^]+\n`) // differ between versions of Python
)

func (tr *transcript) text(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(tr.file.Name())
	if err != nil {
		t.Fatal(err)
	}
	text := elapsed.ReplaceAllString(string(data), "$1${2}N.NN")
	return carets.ReplaceAllString(text, "")
}

// Handle writes events to the transcript: it is a sink.
func (tr *transcript) Handle(r event.Record) {
	switch e := r.Event.(type) {
	case event.Log:
		level := []string{"debug", "info", "warning", "error"}[e.Level]
		if e.Always {
			level = "always"
		}
		tr.printf("<log %s %q> %s", level, e.Machine, e.Text)
	case event.BlockOpen:
		tr.printf("<open %d %q subtest=%q attrs=%v> %s", e.ID, e.Machine, e.Subtest, e.Attrs, e.Text)
	case event.BlockClose:
		tr.printf("<close %d failure=%q> %s", e.ID, e.Failure, e.Text)
	case event.Serial:
		tr.printf("<serial %q> %s", e.Machine, e.Text)
	case event.TestFailure:
		tr.printf("<test failure, subtest %q, line %d>", e.Subtest, e.Line)
		for _, line := range e.Lines {
			tr.printf("!!! %s", line)
		}
	}
}

func (tr *transcript) Close() error { return nil }

// fakeCaller answers as machines would, without any.
type fakeCaller struct {
	transcript *transcript
	calls      chan script.Request // receives every call when not nil

	mu      sync.Mutex // guards what the last recorded call had
	lastEnv []string
	lastDir string

	events atomic.Int32 // of QMP, given out
}

type assertionError string

func (e assertionError) Error() string      { return string(e) }
func (e assertionError) ScriptKind() string { return string(script.KindAssertion) }

type exceptionError string

func (e exceptionError) Error() string      { return string(e) }
func (e exceptionError) ScriptKind() string { return string(script.KindException) }

func (c *fakeCaller) Call(ctx context.Context, r script.Request) (any, error) {
	c.record(r)
	if c.calls != nil {
		c.calls <- r
	}
	var args struct {
		Command  string
		Commands []string
		Name     string
		Start    string `json:"start_command"`
	}
	if err := r.Decode(&args); err != nil {
		return nil, err
	}
	switch r.Method {
	case "succeed", "fail":
		var out strings.Builder
		for _, command := range args.Commands {
			switch {
			case command == "false" && r.Method == "succeed":
				return nil, assertionError("command `false` failed (exit code 1)")
			case command == "die":
				return nil, errors.New("machine \"only\" has died\nhint: look at its console")
			case command == "boom":
				return nil, exceptionError("something else")
			case command == "hang":
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
			fmt.Fprintf(&out, "output of %s\n", command)
		}
		return out.String(), nil
	case "execute":
		return []any{0, fmt.Sprintf("output of %s\n", args.Command)}, nil
	case "systemctl", "start_job", "stop_job":
		return []any{3, "inactive"}, nil
	case "wait_until_succeeds":
		if r.Callback != nil { // two polls, with other calls in between
			for range 2 {
				if err := r.Callback(ctx); err != nil {
					return nil, err
				}
				c.transcript.printf("<polled>")
			}
		}
		return "text of " + r.Method, nil
	case "wait_until_fails", "get_unit_property", "send_monitor_command", "get_console_log",
		"get_tty_text", "get_screen_text", "ssh_backdoor_command", "dump_machine_ssh":
		return "text of " + r.Method, nil
	case "get_screen_text_variants", "get_window_names":
		return []string{"text of", r.Method}, nil
	case "get_unit_info":
		return map[string]string{"ActiveState": "active"}, nil
	case "is_up":
		return true, nil
	case "get_attribute":
		switch args.Name {
		case "pid", "last_pid":
			return 1234, nil
		case "returncode":
			return 0, nil
		}
		return true, nil
	case "run":
		return map[string]any{"status": 3, "stdout": "out", "stderr": "err"}, nil
	case "parallel":
		results := []any{}
		for _, command := range args.Commands {
			status := 0
			if command == "false" {
				status = 1
			}
			results = append(results, map[string]any{"status": status, "stdout": command, "stderr": ""})
		}
		return results, nil
	case "succeed_all":
		return map[string]string{"alpha": "out"}, nil
	case "qmp_send":
		if args.Command == "bad" {
			return nil, errors.New("QMP command bad: no such command")
		}
		return map[string]any{"status": "running"}, nil
	case "qmp_next_event":
		switch c.events.Add(1) {
		case 1:
			return map[string]any{"event": "RESUME"}, nil
		case 2:
			return map[string]any{"event": "SHUTDOWN", "data": map[string]any{"guest": true}}, nil
		}
		return nil, nil
	case "read_efi_vars":
		return []any{map[string]any{
			"name": "Boot0001", "guid": "8be4df61-93ca-11d2-aa0d-00e098032b8c", "attributes": 7, "data": "AAH/",
		}}, nil
	case "vlan_stats":
		return []any{map[string]any{"machine": "alpha", "dropped": 1}}, nil
	case "rollback_begin":
		if strings.Contains(string(r.Args), "off") {
			return nil, errors.New("machine \"off\" cannot be saved")
		}
		return map[string]any{"id": 7}, nil
	case "create_machine":
		if args.Name == "" {
			args.Name = "machine"
		}
		return machineInfo(args.Name), nil
	}
	return nil, nil
}

// record writes a call to the transcript, but for those of threads, which come
// in any order.
func (c *fakeCaller) record(r script.Request) {
	if strings.Contains(string(r.Args), "thread ") {
		return
	}
	var env []string
	for _, entry := range r.Env.Env {
		if strings.HasPrefix(entry, "VMTEST_") {
			env = append(env, entry)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	where := ""
	if !slices.Equal(env, c.lastEnv) || r.Env.Dir != c.lastDir && c.lastDir != "" {
		where = fmt.Sprintf(" with env %q, directory changed: %t", env, r.Env.Dir != c.lastDir)
	}
	c.lastEnv, c.lastDir = env, r.Env.Dir
	c.transcript.printf("<call %s.%s %s%s>", r.Machine, r.Method, r.Args, where)
}

func machineInfo(name string) script.MachineInfo {
	return script.MachineInfo{
		Name:      name,
		StateDir:  "/run/driver/vm-state-" + name,
		SharedDir: "/run/driver/shared-xchg-" + name,
		OutDir:    "/out",
	}
}

func session(tr *transcript, path string, machines ...string) script.Session {
	s := script.Session{
		ScriptPath: path,
		OutDir:     "/out",
		TmpDir:     "/run/driver",
		Bus:        event.NewBus(tr),
		Caller:     &fakeCaller{transcript: tr},
	}
	for _, name := range machines {
		s.Machines = append(s.Machines, machineInfo(name))
	}
	return s
}

// writeScript makes a script of text.
func writeScript(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test-script")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// within fails the test when it is not over after a while.
func within(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("the test took too long"))
	t.Cleanup(cancel)
	return ctx
}
