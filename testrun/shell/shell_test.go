package shell_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
func newGuest(t testing.TB, preamble string, o shell.Options, wrap func(net.Conn) net.Conn) *guest {
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
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g := &guest{Conn: shell.New(wrap(conn), o), bash: cmd}
	t.Cleanup(func() {
		g.Close()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if strings.Contains(stderr.String(), "pop_var_context") {
			t.Errorf("bash complains: %s", &stderr)
		}
	})
	return g
}

func plain(c net.Conn) net.Conn { return c }

// run is Run with its result in three.
func (g *guest) run(ctx context.Context, command string, timeout time.Duration) (int, []byte, error) {
	r, err := g.Run(ctx, command, timeout)
	return r.Status, r.Stdout, err
}

func connected(t testing.TB) *guest {
	t.Helper()
	g := newGuest(t, "", shell.Options{}, plain)
	if err := g.Connect(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestConnectPassesOnWhatComesBeforeTheGreeting(t *testing.T) {
	g := newGuest(t, "echo junk of the firmware; printf 'no line end'; ", shell.Options{}, plain)
	var said []string
	if err := g.Connect(t.Context(), func(l string) { said = append(said, l) }); err != nil {
		t.Fatal(err)
	}
	want := []string{"junk of the firmware", "no line end" + shell.Greeting}
	if fmt.Sprint(said) != fmt.Sprint(want) {
		t.Errorf("said %q, want %q", said, want)
	}
}

// kept is a connection that stays open when the host's end of it closes: that of a
// guest goes on to another host's end when the guest has been restored.
type kept struct{ net.Conn }

func (k kept) Close() error { return k.SetReadDeadline(time.Unix(1, 0)) }

// A shell that another connection has taught goes on with a new one, after a
// program has had the console.
func TestRestored(t *testing.T) {
	var conn net.Conn
	g := newGuest(t, "", shell.Options{}, func(c net.Conn) net.Conn { conn = c; return kept{c} })
	if err := g.Connect(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.run(t.Context(), "seq 100000", time.Minute); err != nil {
		t.Fatal(err)
	}
	const program = `echo noise; echo -n "noise vmt-says "; echo ready; while read -r line; do echo "vmt-says $line?"; [[ $line != bye ]] || break; done`
	if answer, err := g.Sleep(t.Context(), program); answer != "ready" || err != nil {
		t.Fatalf("%q %v", answer, err)
	}
	saved, err := g.Saved(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	restored := shell.New(conn, shell.Options{Restored: &saved})
	t.Cleanup(func() { restored.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, line := range []string{"what", "bye"} {
		if answer, err := restored.Ask(ctx, line); answer != line+"?" || err != nil {
			t.Fatalf("%q %v", answer, err)
		}
	}
	if _, err := restored.Ask(ctx, "a\nb"); err == nil {
		t.Error("two lines were sent")
	}
	for range 2 {
		r, err := restored.Run(ctx, "seq 3; exit 3", time.Second)
		if err != nil || r.Status != 3 || string(r.Stdout) != "1\n2\n3\n" {
			t.Errorf("%d %q %v", r.Status, r.Stdout, err)
		}
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
		{"positional parameter", "echo $1", 1, ""},
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
			status, output, err := g.run(t.Context(), test.command, 30*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if status != test.status || !bytes.Equal(output, []byte(test.output)) {
				t.Errorf("status %d, %d bytes %.60q; want %d, %.60q", status, len(output), output, test.status, test.output)
			}
		})
	}
}

// bash's "wait" may miss a child that ends while it looks, once in ten thousand
// commands on a terminal.
func TestManyCommands(t *testing.T) {
	n := 2000
	if os.Getenv("VM_PREBUILD_SOAK") != "" {
		n = 100_000
	}
	g := connected(t)
	for i := range n {
		want := []int{0, 7, 127}[i%3]
		status, _, err := g.run(t.Context(), fmt.Sprintf("exit %d", want), time.Minute)
		if err != nil || status != want {
			t.Fatalf("command %d: status %d, want %d; error %v", i, status, want, err)
		}
	}
}

func TestCommandsDoNotMix(t *testing.T) {
	g := connected(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			status, output, err := g.run(t.Context(), fmt.Sprintf("echo %d; exit %d", i, i), 0)
			if err != nil || status != i || string(output) != fmt.Sprintf("%d\n", i) {
				t.Errorf("command %d: %d %q %v", i, status, output, err)
			}
		})
	}
	wg.Wait()
}

func TestTimeoutInTheGuest(t *testing.T) {
	g := connected(t)
	status, output, err := g.run(t.Context(), "echo begun; sleep 60", 200*time.Millisecond)
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
	_, _, err := g.run(t.Context(), "echo late", timeout)
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
	status, output, err := g.run(t.Context(), "echo fresh", 10*time.Second)
	if err != nil || status != 0 || string(output) != "fresh\n" {
		t.Errorf("after the stop: %d %q %v", status, output, err)
	}
}

func TestGivenUpCommandLeavesTheStreamInOrder(t *testing.T) {
	g := connected(t)
	cause := errors.New("given up")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
	defer cancel()
	if _, _, err := g.run(ctx, "sleep 0.3; echo stale", 0); !errors.Is(err, cause) {
		t.Fatalf("error %v, want the context's cause", err)
	}
	status, output, err := g.run(t.Context(), "echo fresh", 10*time.Second)
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
		_, _, err := g.run(ctx, "head -c 3000000 /dev/zero", 0)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		status, output, err := g.run(t.Context(), "echo fresh", 10*time.Second)
		if err != nil || status != 0 || string(output) != "fresh\n" {
			t.Fatalf("%d %q %v", status, output, err)
		}
	}
}

// muteConn does not send the line feeds by which the host takes a chunk.
type muteConn struct {
	net.Conn
	got atomic.Int64
}

func (m *muteConn) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.got.Add(int64(n))
	return n, err
}

func (m *muteConn) Write(p []byte) (int, error) {
	if string(p) == "\n" {
		return 1, nil
	}
	return m.Conn.Write(p)
}

// What is in flight at any time fits into the buffer of QEMU's socket, beyond
// which QEMU drops what the guest writes.
func TestGuestWaitsForTheHost(t *testing.T) {
	var mute *muteConn
	g := newGuest(t, "", shell.Options{}, func(c net.Conn) net.Conn {
		mute = &muteConn{Conn: c}
		return mute
	})
	if err := g.Connect(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	before := mute.got.Load()
	if _, _, err := g.run(ctx, "head -c 1000000 /dev/zero", 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v, want the deadline", err)
	}
	// A frame of the first bytes, and one line of base64.
	if got := mute.got.Load() - before; got < 32769 || got > 32769+2000 {
		t.Errorf("%d bytes without an answer", got)
	}
}

func TestSendDoesNotWait(t *testing.T) {
	g := connected(t)
	file := t.TempDir() + "/sent"
	if err := g.Send(t.Context(), "echo noise; touch "+file, 0); err != nil {
		t.Fatal(err)
	}
	_, output, err := g.run(t.Context(), "test -e "+file+" && echo there", 10*time.Second)
	if err != nil || string(output) != "there\n" {
		t.Errorf("%q %v", output, err)
	}
}

func TestGuestThatEnds(t *testing.T) {
	g := connected(t)
	done := make(chan error, 1)
	go func() {
		_, _, err := g.run(t.Context(), "sleep 60", 0)
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
	if _, _, err := g.run(t.Context(), "true", 0); !errors.Is(err, shell.ErrClosed) {
		t.Errorf("afterwards: %v, want ErrClosed", err)
	}
}

func TestGuestThatDoesNotRead(t *testing.T) {
	host, _ := net.Pipe() // nobody reads the other end
	c := shell.New(host, shell.Options{})
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Run(ctx, "true", 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the deadline", err)
	}
}

func TestMalformedAnswers(t *testing.T) {
	for answer, want := range map[string]string{
		"vmt-out 1 0 0\n!!!\n":                         "malformed base64",
		"vmt-end 2 0 0 -\n":                            "answered command 2",
		"vmt-end 1 -1 0 -\n":                           `the malformed line "vmt-end 1 -1 0 -"`,
		"vmt-out 1 0 0\n" + strings.Repeat("x", 2<<20): "a line of more than",
	} {
		host, peer := net.Pipe()
		c := shell.New(host, shell.Options{})
		go func() {
			buf := make([]byte, 4096)
			_, _ = peer.Read(buf)
			_, _ = peer.Write([]byte(answer))
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, err := c.Run(ctx, "true", 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("answer %.40q: error %v, want one with %q", answer, err, want)
		}
		cancel()
		c.Close()
		peer.Close()
	}
}

// Kernels and daemons may write to the console that is ours.
func TestForeignLines(t *testing.T) {
	host, peer := net.Pipe()
	c := shell.New(host, shell.Options{})
	defer c.Close()
	defer peer.Close()
	go func() {
		buf := make([]byte, 4096)
		_, _ = peer.Read(buf)
		_, _ = peer.Write([]byte("[ 1.0] hello\nvmt-end x\nPassword: vmt-end 1 3 2 -\nhi"))
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if r, err := c.Run(ctx, "true", 0); err != nil || r.Status != 3 || string(r.Stdout) != "hi" {
		t.Errorf("%+v %v", r, err)
	}
}

func TestRepeat(t *testing.T) {
	g := connected(t)
	file := t.TempDir() + "/there"
	r, done, err := g.Repeat(t.Context(), "test -e "+file, false, 0, 200*time.Millisecond)
	if err != nil || done || r.Status != 1 {
		t.Errorf("%+v %v %v, want no end", r, done, err)
	}
	time.AfterFunc(300*time.Millisecond, func() { _ = os.WriteFile(file, []byte("a\x00b"), 0o600) })
	for !done && err == nil {
		r, done, err = g.Repeat(t.Context(), "cat "+file, false, time.Second, time.Second)
	}
	if err != nil || r.Status != 0 || string(r.Stdout) != "a\x00b" {
		t.Errorf("%+v %v", r, err)
	}
	// A long output of the attempt that counts, and of none before.
	r, done, err = g.Repeat(t.Context(), "head -c 100000 /dev/zero; test ! -e "+file+"x && touch "+file+"x && exit 1; true", false, 10*time.Second, 10*time.Second)
	if err != nil || !done || r.Status != 0 || len(r.Stdout) != 100000 {
		t.Errorf("%d bytes, status %d, %v %v", len(r.Stdout), r.Status, done, err)
	}
	r, done, err = g.Repeat(t.Context(), "sleep 60", true, 100*time.Millisecond, time.Second)
	if err != nil || !done || r.Status != 124 {
		t.Errorf("%+v %v %v, want the status of a time-out, which is a failure", r, done, err)
	}
}

func TestTimeouts(t *testing.T) {
	g := connected(t)
	for command, want := range map[string]string{
		"echo begun; sleep 60":                                     "begun\n",
		"head -c 100000 /dev/zero; sleep 60":                       strings.Repeat("\x00", 100000),
		"trap 'echo bye; exit' TERM; sleep 60 & wait":              "bye\n",
		"(trap '' TERM; echo stubborn; while :; do sleep 1; done)": "stubborn\n",
		"sleep 60 | cat":                                           "",
		"exec >&2; sleep 60":                                       "",
		"trap '' TERM; head -c 5000 /dev/zero; sleep 60; sleep 60": strings.Repeat("\x00", 5000),
	} {
		status, output, err := g.run(t.Context(), command, 800*time.Millisecond)
		if err != nil || status != 124 || string(output) != want {
			t.Errorf("%s: %d, %d bytes %.30q, %v", command, status, len(output), output, err)
		}
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		left, _ := exec.Command("pgrep", "-g", strconv.Itoa(g.bash.Process.Pid), "sleep").Output()
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("left over: %s", left)
		}
	}
}

func TestFeedAndReceive(t *testing.T) {
	g := connected(t)
	data := make([]byte, 1<<20+17)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	file := t.TempDir() + "/file"
	r, err := g.Feed(t.Context(), "cat >"+file, bytes.NewReader(data), int64(len(data)))
	if err != nil || r.Status != 0 {
		t.Fatalf("%+v %v", r, err)
	}
	var back bytes.Buffer
	r, err = g.Receive(t.Context(), "cat "+file+"; exit 4", &back)
	if err != nil || r.Status != 4 || !bytes.Equal(back.Bytes(), data) {
		t.Errorf("status %d, %d bytes back, %v", r.Status, back.Len(), err)
	}
	// What a command does not take of its input is not taken for a command.
	for _, command := range []string{"true", "exit 5", "head -c 5 >/dev/null"} {
		if _, err := g.Feed(t.Context(), command, bytes.NewReader(data), int64(len(data))); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		if _, out, err := g.run(t.Context(), "echo fresh", 10*time.Second); err != nil || string(out) != "fresh\n" {
			t.Fatalf("after %s: %q %v", command, out, err)
		}
	}
}

// Commands are themselves, whichever way they are run.
func TestProcessOfItsOwn(t *testing.T) {
	g := connected(t)
	_, out, err := g.run(t.Context(), `echo $$ $PPID; [[ $$ = $BASHPID ]]`, 0)
	if pid := strconv.Itoa(g.bash.Process.Pid); err != nil || strings.HasPrefix(string(out), pid+" ") {
		t.Errorf("$$ is %q, that of the shell itself (%s), %v", out, pid, err)
	}
	for _, command := range []string{"kill -INT $BASHPID; echo alive", "sh -c 'kill -INT $$; echo alive'", "timeout -s INT 0.1 sleep 5"} {
		if status, out, err := g.run(t.Context(), command, 0); err != nil || status == 0 || strings.Contains(string(out), "alive") {
			t.Errorf("%s: %d %q %v; SIGINT was ignored", command, status, out, err)
		}
	}
	if _, out, err := g.run(t.Context(), "compgen -v | grep -c '^_vmt_' || :", 0); err != nil {
		t.Errorf("%q %v", out, err)
	}
	// What one command sets, the next does not see.
	if _, _, err := g.run(t.Context(), "x=1; cd /; f() { :; }; exec 9</dev/null; umask 0", 0); err != nil {
		t.Fatal(err)
	}
	if status, out, err := g.run(t.Context(), "echo \"${x-}|$PWD|$(umask)\"; f 2>/dev/null", 0); err != nil || status != 127 || !strings.HasPrefix(string(out), "|") || strings.Contains(string(out), "0000") {
		t.Errorf("%d %q %v", status, out, err)
	}
}

func BenchmarkTrue(b *testing.B) {
	g := connected(b)
	for b.Loop() {
		if status, _, err := g.run(b.Context(), "true", 0); err != nil || status != 0 {
			b.Fatal(status, err)
		}
	}
}

// A guest that reboots has a new shell, and the commands after that use it.
func TestGuestThatReboots(t *testing.T) {
	host, peer := net.Pipe()
	c := shell.New(host, shell.Options{})
	defer c.Close()
	defer peer.Close()
	go func() {
		in := bufio.NewScanner(peer)
		for in.Scan() {
			switch line := in.Text(); {
			case strings.Contains(line, "'first'"):
				_, _ = io.WriteString(peer, "firmware\n"+shell.Greeting+"\n")
			case strings.HasPrefix(line, "printf 'vmt-ready"):
				_, _ = io.WriteString(peer, "vmt-ready 0 0\n")
			case strings.Contains(line, "'second'"):
				_, _ = io.WriteString(peer, "vmt-end 2 0 2 -\nhi")
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Run(ctx, "first", 0); err == nil || !shell.Rebooted(err) {
		t.Errorf("error %v", err)
	}
	if r, err := c.Run(ctx, "second", 0); err != nil || string(r.Stdout) != "hi" {
		t.Errorf("%+v %v", r, err)
	}
}

// The rest of an output that arrives by the data port before its beginning has by the
// console comes behind it.
func TestRestBeforeBeginning(t *testing.T) {
	host, peer := net.Pipe()
	dataHost, dataPeer := net.Pipe()
	c := shell.New(host, shell.Options{Data: dataHost})
	defer c.Close()
	defer peer.Close()
	defer dataPeer.Close()
	rest := strings.Repeat("rest", 100)
	go func() {
		key := ""
		for in := bufio.NewScanner(peer); in.Scan(); {
			switch line := in.Text(); {
			case strings.HasPrefix(line, "_vmt_key="):
				key, _, _ = strings.Cut(strings.TrimPrefix(line, "_vmt_key="), " ")
			case strings.HasPrefix(line, "printf 'vmt-ready"):
				_, _ = io.WriteString(peer, "vmt-ready 0 1\n")
				_, _ = io.WriteString(dataPeer, key+"0")
			case strings.Contains(line, "'long'"):
				ported := make(chan struct{})
				go func() {
					defer close(ported)
					_, _ = io.WriteString(dataPeer, rest+key+"1")
				}()
				time.Sleep(20 * time.Millisecond) // to be read, if anything were to read it
				_, _ = io.WriteString(peer, "vmt-out 1 5 0\nfirst")
				<-ported
				_, _ = io.WriteString(peer, "vmt-end 1 0 0 port\n")
			}
		}
	}()
	go func() { _, _ = io.WriteString(peer, shell.Greeting+"\n") }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Connect(ctx, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Run(ctx, "long", 0); err != nil || string(r.Stdout) != "first"+rest {
		t.Errorf("%+v %v", r, err)
	}
}

// What is read for a command's input may end early, and the shell goes on.
func TestInputThatEndsEarly(t *testing.T) {
	g := connected(t)
	if _, err := g.Feed(t.Context(), "cat >/dev/null", strings.NewReader("abc"), 100000); err == nil || !strings.Contains(err.Error(), "3 bytes instead of 100000") {
		t.Errorf("error %v", err)
	}
	if _, out, err := g.run(t.Context(), "echo fresh", 10*time.Second); err != nil || string(out) != "fresh\n" {
		t.Errorf("%q %v", out, err)
	}
}
