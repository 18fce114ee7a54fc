package python_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/script/python"
)

// The test binary is also a driver, for tests that kill one or need one with a
// terminal of its own.
const (
	roleVariable = "VM_PREBUILD_TEST_ROLE"
	rolePath     = "VM_PREBUILD_TEST_SCRIPT"
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	s := script.Session{
		ScriptPath: os.Getenv(rolePath),
		Machines:   []script.MachineInfo{machineInfo("only")},
		Bus:        event.NewBus(),
		Caller:     hangingCaller{cancelled: make(chan struct{}, 1)},
	}
	var err error
	switch role {
	case "run":
		err = python.Host{}.Run(context.Background(), s)
	case "interact":
		// Ctrl-C must not get here.
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		err = python.Host{}.Interact(ctx, s)
		foreground, _ := unix.IoctlGetInt(0, unix.TIOCGPGRP)
		fmt.Printf("foreground: %t\n", foreground == unix.Getpgrp())
	}
	fmt.Printf("driver: %v\n", err)
}

// hangingCaller says hello. Calls of fail last until they are cancelled; those
// of reboot, until a call of fail was.
type hangingCaller struct{ cancelled chan struct{} }

func (c hangingCaller) Call(ctx context.Context, r script.Request) (any, error) {
	switch r.Method {
	case "fail":
		fmt.Println("hanging")
		<-ctx.Done()
		c.cancelled <- struct{}{}
		return nil, context.Cause(ctx)
	case "reboot":
		<-c.cancelled
	case "start_all":
		fmt.Println("starting")
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return "hello", nil
}

func driverProcess(t *testing.T, role, scriptPath string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role, rolePath+"="+scriptPath, "TERM=dumb")
	return cmd
}

// TestDriverKilled kills a driver with SIGKILL: the interpreter and what it
// started end by themselves.
func TestDriverKilled(t *testing.T) {
	needPython(t)
	for name, text := range map[string]string{
		"in a call": "machine.fail('x')",
		"computing": "print('hanging', flush=True)\nwhile True: pass",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			cmd := driverProcess(t, "run", writeScript(t, "import subprocess\nsubprocess.Popen(['sleep', '1000'])\n"+text))
			cmd.Stdout, cmd.Stderr = w, w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			readUntil(t, r, "hanging")
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			expectEOF(t, r, w)
		})
	}
}

func TestInteractWithoutTerminal(t *testing.T) {
	needPython(t)
	stdin, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	fmt.Fprintln(w, "print(machine.succeed('a', 'b') + 'c')\n1 / 0\ntest_script()\nexit(4)")
	w.Close()
	tr := newTranscript(t)
	s := session(tr, writeScript(t, "machine.succeed('in the script')\nraise ValueError('from the script')"), "only")
	err = python.Host{Stdin: stdin, Stdout: tr.file, Stderr: tr.file}.Interact(within(t, time.Minute), s)
	var failure *script.Failure
	if !errors.As(err, &failure) || failure.Kind != script.KindExit || failure.ExitCode != 4 {
		t.Errorf("got error %v", err)
	}
	for _, want := range []string{
		"additionally exposed symbols:",
		`<call only.succeed {"commands":["a","b"],"timeout":null}>`,
		"output of b\nc\n",
		"ZeroDivisionError: division by zero",
		"> run the VM test script",
		`<call only.succeed {"commands":["in the script"],"timeout":null}>`,
		`failure="from the script"`,
		"    raise ValueError('from the script')",
	} {
		if !strings.Contains(tr.text(t), want) {
			t.Errorf("no %q in %s", want, tr.text(t))
		}
	}
}

// TestInteract types at a real terminal: Ctrl-C ends a call but neither the
// interpreter nor the driver, Ctrl-D leaves, and the driver has the terminal
// again.
func TestInteract(t *testing.T) {
	needPython(t)
	pty, tty := openTerminal(t)
	cmd := driverProcess(t, "interact", "none")
	cmd.Dir = t.TempDir()
	cmd.Env = append(cmd.Env, "PYTHONPATH="+prompts(t, map[string]string{
		"ptpython.py": "raise ImportError", "IPython.py": "raise ImportError",
	}))
	converse(t, cmd, pty, tty, []step{
		{">>> ", "machine.succeed('a') + ' you'\n"},
		{"'hello you'", ""},
		{">>> ", "machine.fail('b')\n"},
		{"hanging", "\x03"},
		{"KeyboardInterrupt", ""},
		{">>> ", "machine.reboot() or 6 * 7\n"},
		{"42", ""},
		{">>> ", "start_all()\n"},
		{"starting", "\x03"},
		{"KeyboardInterrupt", ""},
		{">>> ", "len(machine.get_conso\t"}, // completed by readline
		{"len(machine.get_console_log()", ")\n"},
		{"5", ""},
		{">>> ", "machine.succeed('x' * (8 << 20))[:5]\n"}, // more than the socket holds
		{"'hello'", ""},
		{">>> ", "\x04"}, // after the prompt: the mode of the terminal has changed
		{"foreground: true", ""},
		{"driver: <nil>", ""},
	})
	history, err := os.ReadFile(filepath.Join(cmd.Dir, ".nixos-test-history"))
	if err != nil || !strings.Contains(string(history), "machine.reboot() or 6 * 7\n") {
		t.Errorf("history: %q, %v", history, err)
	}
}

// TestPrompts checks which prompt is offered when there are several.
func TestPrompts(t *testing.T) {
	needPython(t)
	const (
		both = `def embed(*, user_ns, history_filename):
	print("ptpython with IPython:", user_ns["machine"].succeed(), history_filename)`
		alone = `def embed(globals, locals, history_filename):
	print("ptpython:", globals["machine"].succeed(), history_filename)`
		ipython = `def start_ipython(argv, user_ns):
	print("IPython:", user_ns["machine"].succeed())`
		none = "raise ImportError"
	)
	for _, tc := range []struct {
		name, both, alone, ipython, want string
	}{
		{"all", both, alone, ipython, "ptpython with IPython: hello ./.nixos-test-history\r\n"},
		{"ptpython without IPython", none, alone, none, "ptpython: hello ./.nixos-test-history\r\n"},
		{"only IPython", none, none, ipython, "IPython: hello\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			pty, tty := openTerminal(t)
			cmd := driverProcess(t, "interact", "none")
			cmd.Env = append(cmd.Env, "PYTHONPATH="+prompts(t, map[string]string{
				"ptpython/__init__.py": "", "ptpython/ipython.py": tc.both, "ptpython/repl.py": tc.alone,
				"IPython.py": tc.ipython,
			}))
			converse(t, cmd, pty, tty, []step{{tc.want, ""}, {"driver: <nil>", ""}})
		})
	}
}

// prompts makes modules for $PYTHONPATH.
func prompts(t *testing.T, modules map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range modules {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// step waits for a text and then types another.
type step struct{ wait, typed string }

// converse runs cmd on a terminal.
func converse(t *testing.T, cmd *exec.Cmd, pty, tty *os.File, steps []step) {
	t.Helper()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	defer cmd.Process.Kill() //nolint:errcheck // it has ended, unless the test failed
	for _, s := range steps {
		readUntil(t, pty, s.wait)
		if s.typed == "" {
			continue // a write of nothing fails, too, once the other side is gone
		}
		if _, err := pty.WriteString(s.typed); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// openTerminal returns both ends of a new pseudo-terminal.
func openTerminal(t *testing.T) (pty, tty *os.File) {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pty.Close() })
	raw, err := pty.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number uint32
	if err := raw.Control(func(fd uintptr) {
		if err := unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			t.Error(err)
		}
		if number, err = unix.IoctlGetUint32(int(fd), unix.TIOCGPTN); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return pty, tty
}

// readUntil reads up to and including want, and fails the test when that does
// not come.
func readUntil(t *testing.T, r *os.File, want string) {
	t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	one := make([]byte, 1)
	for !strings.HasSuffix(seen.String(), want) {
		n, err := r.Read(one)
		seen.Write(one[:n])
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", want, err, seen.String())
		}
	}
}
