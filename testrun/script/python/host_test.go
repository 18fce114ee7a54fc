package python_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/script/python"
)

var update = flag.Bool("update", false, "write golden files")

// needPython skips the test where there is no python3, and fails it in CI.
func needPython(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// TestScripts runs each script of testdata and compares all that it did with
// the golden file of the same name.
func TestScripts(t *testing.T) {
	needPython(t)
	two := func(s *script.Session) {
		s.Machines = []script.MachineInfo{machineInfo("alpha"), machineInfo("web-1")}
		s.VLANs = []int{1, 2}
	}
	sessions := map[string]func(*script.Session){
		"symbols":         two,
		"vlan":            two,
		"keep_going":      func(s *script.Session) { s.KeepGoing = true },
		"keep_going_exit": func(s *script.Session) { s.KeepGoing = true },
		"rollback":        func(s *script.Session) { s.KeepGoing = true },
		"only_some":       func(s *script.Session) { s.Subtest = "^b|deep" },
		"only_none":       func(s *script.Session) { s.Subtest = "nothing like it" },
		"only_driver":     func(s *script.Session) { s.Subtest = "through" },
		"only_unknown":    func(s *script.Session) { s.Subtest = "nothing like it" },
		"only_what":       func(s *script.Session) { s.Subtest = "(" },
		"own_driver":      func(s *script.Session) { s.Machines, s.VLANs = nil, []int{3} },
	}
	paths, err := filepath.Glob("testdata/*.py")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts in testdata", err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".py")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTranscript(t)
			s := session(tr, path, "only")
			if set := sessions[name]; set != nil {
				set(&s)
			}
			err := python.Host{Stdout: tr.file, Stderr: tr.file}.Run(within(t, time.Minute), s)
			var failure *script.Failure
			switch {
			case errors.As(err, &failure):
				tr.printf("<failure %s, exit code %d, line %d> %s", failure.Kind, failure.ExitCode, failure.Line, failure.Message)
				for _, line := range failure.Lines {
					tr.printf("!!! %s", line)
				}
			case err != nil:
				tr.printf("<error> %v", err)
			}

			golden := filepath.Join("testdata", name+".golden")
			got := tr.text(t)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("transcript differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInterpreterErrors(t *testing.T) {
	needPython(t)
	// Interpreters that behave badly; sh is a stand-in for Python.
	fake := func(t *testing.T, body string) string {
		path := filepath.Join(t.TempDir(), "fake-python")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const script = "machine.succeed('x')"
	for _, tc := range []struct {
		name, python, script, want string
	}{
		{"missing name", "no-such-python", script, `"no-such-python": executable file not found in $PATH` + "\nhint: test scripts need Python 3.11"},
		{"missing path", "/no/such/python", script, "/no/such/python: no such file or directory\nhint: "},
		{"not executable", "host_test.go", script, "start interpreter of the test script: "},
		{"too old", fake(t, `echo '{"unsupported": {"version": "3.9.2"}}' >&3`), script, "fake-python: this is Python 3.9.2\nhint: test scripts need Python 3.11 or newer"},
		{"exits", fake(t, "exit 9"), script, "fake-python died before the script ended: exit status 9"},
		{"exits with success", fake(t, "exit 0"), script, "died before the script ended: exit status 0"},
		{"is killed", "", "import os; os.kill(os.getpid(), 9)", "died before the script ended: signal: killed"},
		{"aborts", "", "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()", "died before the script ended: signal: aborted"},
		{"_exit", "", "import os; os._exit(4)", "died before the script ended: exit status 4"},
		{"no JSON", fake(t, `echo hello >&3; exec sleep 100`), script, "fake-python: malformed message: invalid character 'h'"},
		{"no form", fake(t, `echo '{}' >&3; exec sleep 100`), script, "malformed message: not one of"},
		{"half a message", fake(t, `printf '{"id": 1' >&3`), script, "malformed message: unexpected end"},
		{"same id twice", fake(t, `
			m='{"id": 1, "method": "succeed", "args": {"commands": ["hang"]}}'
			echo "$m" >&3; echo "$m" >&3; exec sleep 100`), script, `call 1 of "succeed" has the number of a call under way`},
		{"endless message", fake(t, `exec tr '\0' x </dev/zero >&3`), script, "message of more than 64 MiB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tr := newTranscript(t)
			s := session(tr, writeScript(t, tc.script), "only")
			err := python.Host{Python: tc.python, Stdout: tr.file, Stderr: tr.file}.Run(within(t, time.Minute), s)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got error %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestMissingScript(t *testing.T) {
	err := python.Host{}.Run(t.Context(), session(newTranscript(t), "/no/such/script", "only"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestCancel ends the context in different states of a script. Run must return
// the cause, and no process may keep the script's output open.
func TestCancel(t *testing.T) {
	needPython(t)
	for name, text := range map[string]string{
		"in a call":       "machine.succeed('ready'); machine.succeed('hang')",
		"in a loop":       "machine.succeed('ready')\nwhile True: pass",
		"in an input":     "machine.succeed('ready')\nimport time\ntime.sleep(1000)",
		"with processes":  "import subprocess\nps = [subprocess.Popen(['sleep', '1000']) for _ in range(3)]\nmachine.succeed('ready', 'hang')",
		"with threads":    "import threading\n[threading.Thread(target=machine.succeed, args=('hang',)).start() for _ in range(5)]\nmachine.succeed('ready', 'hang')",
		"ignoring SIGINT": "import signal\n[signal.signal(s, signal.SIG_IGN) for s in (2, 15)]\nmachine.succeed('ready', 'hang')",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			ctx, cancel := context.WithCancelCause(within(t, time.Minute))
			tr := newTranscript(t)
			s := session(tr, writeScript(t, "with subtest('slow'):\n  "+strings.ReplaceAll(text, "\n", "\n  ")), "only")
			calls := make(chan script.Request, 10)
			s.Caller = &fakeCaller{transcript: tr, calls: calls}
			cause := errors.New("enough")
			go func() {
				for call := range calls {
					if strings.Contains(string(call.Args), "ready") {
						cancel(cause)
						return
					}
				}
			}()
			if err := (python.Host{Stdout: w, Stderr: w}).Run(ctx, s); !errors.Is(err, cause) {
				t.Errorf("got %v", err)
			}
			cancel(nil)
			expectEOF(t, r, w)
			if want := `failure="enough"> subtest: slow`; !strings.Contains(tr.text(t), want) {
				t.Errorf("no %q in %s", want, tr.text(t))
			}
		})
	}
}

// expectEOF checks that nobody but us holds the writing end of a pipe.
func expectEOF(t *testing.T, r, w *os.File) string {
	t.Helper()
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Errorf("a process is left: %v", err)
	}
	return string(data)
}

// A script's end leaves no processes, and its threads are not waited for long.
func TestLeftovers(t *testing.T) {
	needPython(t)
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	tr := newTranscript(t)
	s := session(tr, writeScript(t, `
import subprocess, threading, time
subprocess.Popen(["sleep", "1000"])
threading.Thread(target=time.sleep, args=(1000,)).start()
`), "only")
	if err := (python.Host{Stdout: w, Stderr: w}).Run(within(t, time.Minute), s); err != nil {
		t.Error(err)
	}
	expectEOF(t, r, w)
	if want := "<log warning \"\"> Python is still running 5s after the script's end: killed"; !strings.Contains(tr.text(t), want) {
		t.Errorf("no %q in %s", want, tr.text(t))
	}
}

// Output that is copied instead of inherited is complete when Run returns.
func TestCopiedOutput(t *testing.T) {
	needPython(t)
	var out, errOut strings.Builder
	s := session(newTranscript(t), writeScript(t, "import sys\nfor i in range(1000): print(i)\nprint('é', file=sys.stderr, end='')"), "only")
	if err := (python.Host{Stdout: &out, Stderr: &errOut}).Run(within(t, time.Minute), s); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), "\n998\n999\n") || errOut.String() != "é" {
		t.Errorf("got %q, %q", out.String(), errOut.String())
	}
}

// Large arguments and results pass whole, in both directions at once.
func TestLargeMessages(t *testing.T) {
	needPython(t)
	s := session(newTranscript(t), writeScript(t, `
import threading
def work():
    for _ in range(3):
        text = "thread " + "é\n" * 300_000
        assert machine.execute(text)[1] == "output of " + text + "\n"
threads = [threading.Thread(target=work) for _ in range(4)]
failed = []
threading.excepthook = failed.append
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failed, failed
`), "only")
	if err := (python.Host{Stdout: io.Discard}).Run(within(t, time.Minute), s); err != nil {
		t.Fatal(err)
	}
}

// Calls of many threads get their own replies while signal handlers interrupt
// those of the main thread, and make calls themselves.
func TestInterruptedCalls(t *testing.T) {
	needPython(t)
	s := session(newTranscript(t), writeScript(t, `
import random, signal, threading
class Alarm(Exception):
    pass
def ring(*_):
    if random.random() < 0.3:
        assert machine.execute("thread handler")[1] == "output of thread handler\n"
    raise Alarm
def work(n):
    for i in range(100):
        text = f"thread {n} {i} " + "x" * random.choice([1, 100_000])
        assert machine.execute(text)[1] == "output of " + text + "\n"
        done.append(n)
done, failed, alarms = [], [], 0
threading.excepthook = failed.append
threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
[thread.start() for thread in threads]
signal.signal(signal.SIGALRM, ring)
while any(thread.is_alive() for thread in threads):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.003))
        while True:
            text = "thread main " + "y" * random.choice([1, 300_000])
            assert machine.execute(text)[1] == "output of " + text + "\n"
    except Alarm:
        alarms += 1
    except RuntimeError as e: # the handler's call met the interrupted one's in the writer
        assert "reentrant" in str(e), e
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert not failed, failed
assert len(done) == 600 and alarms > 3, (len(done), alarms)
assert machine.execute("thread end")[1] == "output of thread end\n"
`), "only")
	if err := (python.Host{Stdout: io.Discard}).Run(within(t, time.Minute), s); err != nil {
		t.Fatal(err)
	}
}

// The user's Python environment is the script's, and the working directory is
// not on the module path.
func TestModulePath(t *testing.T) {
	needPython(t)
	user, work := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(user, "user_module.py"): "answer = 42",
		filepath.Join(user, "test_driver.py"): "raise RuntimeError('not this one')",
		filepath.Join(work, "json.py"):        "raise RuntimeError('nor this')",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PYTHONPATH", user)
	path := writeScript(t, "import json, user_module\nimport test_driver.errors\nassert user_module.answer == 42")
	t.Chdir(work)
	if err := (python.Host{Stdout: io.Discard}).Run(within(t, time.Minute), session(newTranscript(t), path, "only")); err != nil {
		t.Error(err)
	}
}

// Start is used, and what the host needs is set when it is called.
func TestStart(t *testing.T) {
	needPython(t)
	var started *exec.Cmd
	h := python.Host{Stdout: io.Discard, Start: func(cmd *exec.Cmd) error {
		started = cmd
		return cmd.Start()
	}}
	if err := h.Run(within(t, time.Minute), session(newTranscript(t), writeScript(t, ""), "only")); err != nil {
		t.Fatal(err)
	}
	if started == nil || !started.SysProcAttr.Setpgid {
		t.Errorf("started %v", started)
	}
}

// BenchmarkStart measures from Run to a script's first call.
func BenchmarkStart(b *testing.B) {
	needPython(b)
	path := writeScript(b, "machine.succeed('x')")
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		s := session(newTranscript(b), path, "only")
		s.Caller = callerFunc(func() { cancel() })
		_ = python.Host{Stdout: io.Discard}.Run(ctx, s)
		cancel()
	}
}

// BenchmarkCall measures one call of a running script.
func BenchmarkCall(b *testing.B) {
	needPython(b)
	s := session(newTranscript(b), writeScript(b, fmt.Sprintf("for _ in range(%d): machine.succeed('true')", b.N)), "only")
	var once sync.Once
	s.Caller = callerFunc(func() { once.Do(b.ResetTimer) })
	if err := (python.Host{Stdout: io.Discard}).Run(b.Context(), s); err != nil {
		b.Fatal(err)
	}
}

type callerFunc func()

func (f callerFunc) Call(context.Context, script.Request) (any, error) {
	f()
	return "", nil
}
