package shell_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/shell"
)

// guest is a bash that plays the guest: it runs the same program, on a socket
// instead of a virtio console.
type guest struct {
	*shell.Conn
	bash *exec.Cmd
}

// newGuest starts a guest that prints preamble before the greeting.
func newGuest(t testing.TB, preamble string) *guest {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "guest")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-c", preamble+`echo "`+shell.Greeting+`"; exec bash --norc`)
	cmd.Stdin, cmd.Stdout = theirs, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g := &guest{Conn: shell.New(conn), bash: cmd}
	t.Cleanup(func() {
		g.Close()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	return g
}

func connected(t testing.TB) *guest {
	t.Helper()
	g := newGuest(t, "")
	if err := g.Connect(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestConnectPassesOnWhatComesBeforeTheGreeting(t *testing.T) {
	g := newGuest(t, "echo junk of the firmware; printf 'no line end'; ")
	var said []string
	if err := g.Connect(t.Context(), func(l string) { said = append(said, l) }); err != nil {
		t.Fatal(err)
	}
	want := []string{"junk of the firmware", "no line end" + shell.Greeting}
	if fmt.Sprint(said) != fmt.Sprint(want) {
		t.Errorf("said %q, want %q", said, want)
	}
}

func TestRun(t *testing.T) {
	g := connected(t)
	tests := []struct {
		name, command string
		status        int
		output        string
	}{
		{"output", "echo one; echo two", 0, "one\ntwo\n"},
		{"no output", "true", 0, ""},
		{"status", "exit 7", 7, ""},
		{"first failure ends it", "false; echo not reached", 1, ""},
		{"failure inside a pipe", "false | true", 1, ""},
		{"unset variable", "echo $nobody_set_this", 1, ""},
		{"quotes", `echo "a 'b' \"c\"" '$d'`, 0, "a 'b' \"c\" $d\n"},
		{"line feeds", "echo a\necho b", 0, "a\nb\n"},
		{"standard input is empty", "cat; echo end", 0, "end\n"},
		{"bytes", `printf '\000\377\r\n\n'`, 0, "\x00\xff\r\n\n"},
		{"looks like an answer", "echo 'vmt-3 0'", 0, "vmt-3 0\n"},
		{"just one chunk", "head -c 24576 /dev/zero | tr '\\0' x", 0, strings.Repeat("x", 24576)},
		{"a byte more", "head -c 24577 /dev/zero | tr '\\0' x", 0, strings.Repeat("x", 24577)},
		{"two chunks", "head -c 49152 /dev/zero | tr '\\0' x", 0, strings.Repeat("x", 49152)},
		{"chunks and a status", "head -c 100000 /dev/zero | tr '\\0' x; exit 9", 9, strings.Repeat("x", 100000)},
		{"1 MiB", "head -c 1048576 /dev/zero | tr '\\0' x", 0, strings.Repeat("x", 1<<20)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status, output, err := g.Run(t.Context(), test.command, 30*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if status != test.status && (test.name != "unset variable" || status == 0) || !bytes.Equal(output, []byte(test.output)) {
				t.Errorf("status %d, %d bytes %.60q; want %d, %.60q", status, len(output), output, test.status, test.output)
			}
		})
	}
}

func TestCommandsDoNotMix(t *testing.T) {
	g := connected(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			status, output, err := g.Run(t.Context(), fmt.Sprintf("echo %d; exit %d", i, i), 0)
			if err != nil || status != i || string(output) != fmt.Sprintf("%d\n", i) {
				t.Errorf("command %d: %d %q %v", i, status, output, err)
			}
		})
	}
	wg.Wait()
}

func TestTimeoutInTheGuest(t *testing.T) {
	g := connected(t)
	status, output, err := g.Run(t.Context(), "echo begun; sleep 60", 200*time.Millisecond)
	if err != nil || status != 124 || string(output) != "begun\n" {
		t.Errorf("%d %q %v, want 124 and the output until then", status, output, err)
	}
}

func TestStuckGuest(t *testing.T) {
	g := connected(t)
	group := -g.bash.Process.Pid
	if err := syscall.Kill(group, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	const timeout = 100 * time.Millisecond
	begin := time.Now()
	_, _, err := g.Run(t.Context(), "echo late", timeout)
	var late *shell.TimeoutError
	if !errors.As(err, &late) || !late.Timeout() {
		t.Fatalf("error %v, want a time-out", err)
	}
	if took := time.Since(begin); took > timeout+shell.Grace+time.Second {
		t.Errorf("took %v", took)
	}
	// The guest comes back, and with it the answer that nobody waits for.
	if err := syscall.Kill(group, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	status, output, err := g.Run(t.Context(), "echo fresh", 10*time.Second)
	if err != nil || status != 0 || string(output) != "fresh\n" {
		t.Errorf("after the stop: %d %q %v", status, output, err)
	}
}

func TestGivenUpCommandLeavesTheStreamInOrder(t *testing.T) {
	g := connected(t)
	cause := errors.New("given up")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
	defer cancel()
	if _, _, err := g.Run(ctx, "sleep 0.3; echo stale", 0); !errors.Is(err, cause) {
		t.Fatalf("error %v, want the context's cause", err)
	}
	status, output, err := g.Run(t.Context(), "echo fresh", 10*time.Second)
	if err != nil || status != 0 || string(output) != "fresh\n" {
		t.Errorf("%d %q %v", status, output, err)
	}
}

// A command that is given up between two chunks of its output leaves the guest
// waiting for an answer, which must not be the next command.
func TestGivenUpBetweenChunks(t *testing.T) {
	for range 5 {
		g := connected(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, _, err := g.Run(ctx, "head -c 3000000 /dev/zero", 0)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		status, output, err := g.Run(t.Context(), "echo fresh", 10*time.Second)
		if err != nil || status != 0 || string(output) != "fresh\n" {
			t.Fatalf("%d %q %v", status, output, err)
		}
	}
}

// What is in flight at any time fits into the buffer of QEMU's socket, beyond
// which QEMU drops what the guest writes.
func TestGuestWaitsForTheHost(t *testing.T) {
	host, peer := net.Pipe()
	c := shell.New(host)
	defer c.Close()
	defer peer.Close()
	bash := exec.Command("bash", "--norc")
	stdin, err := bash.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := bash.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bash.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bash.Process.Kill(); _ = bash.Wait() }()
	command := make(chan []byte, 1)
	go func() {
		buf := make([]byte, 64<<10)
		n, _ := peer.Read(buf)
		command <- buf[:n]
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() { _, _, _ = c.Run(ctx, "head -c 1000000 /dev/zero", 0) }()
	if _, err := stdin.Write(<-command); err != nil {
		t.Fatal(err)
	}
	// The host is silent: what bash has written after a while is all it writes.
	got := make([]byte, 1<<20)
	n, err := io.ReadAtLeast(stdout, got, 32769)
	if err != nil || n != 32769 || got[n-1] != '\n' {
		t.Fatalf("%d bytes, %v", n, err)
	}
	quiet := make(chan int, 1)
	go func() { n, _ := stdout.Read(got); quiet <- n }()
	select {
	case n := <-quiet:
		t.Errorf("%d bytes more without an answer", n)
	case <-time.After(200 * time.Millisecond):
	}
}

func TestSendDoesNotWait(t *testing.T) {
	g := connected(t)
	file := t.TempDir() + "/sent"
	if err := g.Send(t.Context(), "echo noise; touch "+file, 0); err != nil {
		t.Fatal(err)
	}
	_, output, err := g.Run(t.Context(), "test -e "+file+" && echo there", 10*time.Second)
	if err != nil || string(output) != "there\n" {
		t.Errorf("%q %v", output, err)
	}
}

func TestGuestThatEnds(t *testing.T) {
	g := connected(t)
	done := make(chan error, 1)
	go func() {
		_, _, err := g.Run(t.Context(), "sleep 60", 0)
		done <- err
	}()
	_ = syscall.Kill(-g.bash.Process.Pid, syscall.SIGKILL)
	select {
	case err := <-done:
		if !errors.Is(err, shell.ErrClosed) {
			t.Errorf("error %v, want ErrClosed", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("still waiting 5 s after the guest's end")
	}
	if _, _, err := g.Run(t.Context(), "true", 0); !errors.Is(err, shell.ErrClosed) {
		t.Errorf("afterwards: %v, want ErrClosed", err)
	}
}

func TestGuestThatDoesNotRead(t *testing.T) {
	host, _ := net.Pipe() // nobody reads the other end
	c := shell.New(host)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := c.Run(ctx, "true", 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline", err)
	}
}

func TestMalformedAnswers(t *testing.T) {
	for _, answer := range []string{"!!!\nvmt-1 0\n", "\nvmt-1 zero\n"} {
		host, peer := net.Pipe()
		c := shell.New(host)
		go func() {
			buf := make([]byte, 4096)
			_, _ = peer.Read(buf)
			_, _ = peer.Write([]byte(answer))
		}()
		if _, _, err := c.Run(t.Context(), "true", 0); err == nil {
			t.Errorf("answer %q was taken", answer)
		}
		c.Close()
		peer.Close()
	}
}
