package starlark_test

import (
	"bytes"
	"context"
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
	"vm-prebuild/testrun/script/starlark"
)

// roleVariable makes the test binary a driver with a terminal of its own.
const roleVariable = "VM_PREBUILD_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "" {
		os.Exit(m.Run())
	}
	// Ctrl-C must not get here.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := starlark.Host{}.Interact(ctx, script.Session{
		Machines: []script.MachineInfo{machineInfo("only")},
		Bus:      event.NewBus(),
		Caller:   hangingCaller{},
	})
	fmt.Printf("driver: %v\n", err)
}

// hangingCaller says hello; calls of fail last until they are cancelled.
type hangingCaller struct{}

func (hangingCaller) Call(ctx context.Context, r script.Request) (any, error) {
	if r.Method == "fail" {
		fmt.Println("hanging")
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return "hello", nil
}

// Statements come from a pipe, too; errors do not end the session.
func TestInteractFromAPipe(t *testing.T) {
	tr := &transcript{}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	typed := `1 + 1
x = machine.succeed("a")
x
def f(n):
    return n * 2

f(21)
f("x", 1)
nobody
machine.succeed("false")
test_script()
x = `
	if _, err := writer.WriteString(typed); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	s := session(tr, writeScript(t, `print("the script", machine.name)`), "only")
	if err := (starlark.Host{Stdin: reader, Stdout: tr, Stderr: tr}).Interact(within(t, time.Minute), s); err != nil {
		t.Fatal(err)
	}
	text := tr.String()
	_, text, _ = strings.Cut(text, "struct\n")
	want := `2
<call only.succeed {"commands":["a"],"timeout":null}>
"output of a\n"
42
Traceback (most recent call last):
  File "<prompt 6>", line 1, in <expr>
    f("x", 1)
  File "<prompt 4>", line 2, in f
    return n * 2

Error: function f accepts 1 positional argument (2 given)
<prompt 7>:1:1: undefined: nobody
<call only.succeed {"commands":["false"],"timeout":null}>
Traceback (most recent call last):
  File "<prompt 8>", line 1, in <expr>
    machine.succeed("false")

RequestedAssertionFailed: command ` + "`false`" + ` failed (exit code 1)
<open 1 "" subtest="" attrs=map[]> run the VM test script
the script only
<close 1 failure=""> run the VM test script
`
	if !strings.HasPrefix(text, want) {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

func TestExitFromThePrompt(t *testing.T) {
	tr := &transcript{}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	if _, err := writer.WriteString("exit()\n"); err != nil {
		t.Fatal(err)
	}
	if err := (starlark.Host{Stdin: reader, Stdout: tr, Stderr: tr}).Interact(within(t, time.Minute), session(tr, "none", "only")); err != nil {
		t.Error(err)
	}
}

// At a terminal, Ctrl-C ends a call or a line but not the driver, Tab completes
// names, and Ctrl-D leaves.
func TestInteract(t *testing.T) {
	pty, tty := openTerminal(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), roleVariable+"=interact", "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	defer cmd.Process.Kill() //nolint:errcheck // it has ended, unless the test failed
	for _, step := range []struct{ wait, typed string }{
		{">>> ", "machine.succ\t(\"a\") + \" you\"\r"},
		{"\"hello you\"\r\n", ""},
		{">>> ", "machine.fail('b')\r"},
		{"hanging\r\n", "\x03"},
		{"interrupted\r\n", ""},
		{">>> ", "while print('spinning') == None: pass\r"},
		{"... ", "\r"},
		{"spinning\r\n", "\x03"},
		{"interrupted\r\n", ""},
		{">>> ", "garbage\x03"},
		{"interrupted\r\n", ""},
		{">>> ", "6 * 7\r"},
		{"42\r\n", ""},
		{">>> ", "\x04"},
		{"driver: <nil>", ""},
	} {
		readUntil(t, pty, step.wait)
		if step.typed == "" {
			continue // a write of nothing fails, too, once the other side is gone
		}
		if _, err := pty.WriteString(step.typed); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(cmd.Dir, ".nixos-test-history")); err != nil || !strings.Contains(string(text), "6 * 7\n") {
		t.Errorf("history %q %v", text, err)
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
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		if failed == nil {
			number, failed = unix.IoctlGetUint32(int(fd), unix.TIOCGPTN)
		}
		if failed == nil {
			failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 200})
		}
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
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
	if err := r.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
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
