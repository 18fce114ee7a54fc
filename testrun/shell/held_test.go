package shell_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/shell"
)

// Who holds the shell is the only one to run commands.
func TestHold(t *testing.T) {
	g := connected(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, _, err := g.run(ctx, "sleep 1; echo first", time.Minute)
		ended <- err
	}()
	for { // until it runs
		h, err := g.Hold(ctx, 10*time.Millisecond)
		var busy *shell.BusyError
		if errors.As(err, &busy) {
			if !strings.Contains(err.Error(), "sleep 1; echo first\nhint: ") {
				t.Error(err)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		h.Release()
	}
	h, err := g.Hold(ctx, 10*time.Second) // a command that ends soon is waited for
	if err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	other := make(chan string, 1)
	go func() {
		_, out, err := g.run(ctx, "echo other", time.Minute)
		other <- fmt.Sprint(string(out), err)
	}()
	if r, err := h.Run(ctx, "echo held", time.Minute); err != nil || string(r.Stdout) != "held\n" {
		t.Errorf("%q, %v", r.Stdout, err)
	}
	if r, err := h.Feed(ctx, "cat", strings.NewReader("input"), 5); err != nil || string(r.Stdout) != "input" {
		t.Errorf("%q, %v", r.Stdout, err)
	}
	select {
	case out := <-other:
		t.Errorf("another command has run: %s", out)
	case <-time.After(100 * time.Millisecond):
	}
	h.Release()
	if out := <-other; !strings.Contains(out, "other") {
		t.Error(out)
	}
}

// socketPair returns both ends of a connection.
func socketPair(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := [2]net.Conn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		if conns[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conns[i].Close() })
	}
	return conns[0], conns[1]
}

// write writes what a guest would.
func write(t *testing.T, w io.Writer, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(w, format, args...); err != nil {
		t.Error(err)
	}
}

// What a guest has sent before it was put back to an earlier moment is dropped, be
// it half a frame, and the next one is understood.
func TestForget(t *testing.T) {
	ours, guest := socketPair(t)
	ourData, data := socketPair(t)
	ourErr, stderr := socketPair(t)
	said := make(chan string, 10)
	saved := shell.Saved{Key: "vmt-KEY-", Sent: 7, Stderr: true, Port: true}
	c := shell.New(ours, shell.Options{Data: ourData, Stderr: ourErr, OnStderr: func(l string) { said <- l }, Restored: &saved})
	t.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	lines := bufio.NewReader(guest)
	for i := range 3 {
		h, err := c.Hold(ctx, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		write(t, guest, "vmt-end 1 0 0 -\nvmt-out 2 1000 0\nhalf of it")
		write(t, data, "half")
		write(t, stderr, "half a line")
		if i == 1 {
			time.Sleep(20 * time.Millisecond) // the readers have it
		}
		if err := h.Forget(ctx, saved); err != nil {
			t.Fatal(err)
		}
		go func() {
			line, err := lines.ReadString('\n')
			fields := strings.Fields(line)
			if err != nil || len(fields) < 2 {
				t.Errorf("got %q, %v", line, err)
				return
			}
			write(t, stderr, "a line\n")
			write(t, guest, "vmt-end %s 0 4 -\nback", fields[1])
		}()
		r, err := h.Run(ctx, "true", time.Minute)
		if err != nil || string(r.Stdout) != "back" {
			t.Errorf("%q, %v", r.Stdout, err)
		}
		h.Release()
		if line := <-said; line != "a line" {
			t.Errorf("standard error has %q", line)
		}
	}
}

// A guest that is gone is no guest to wait for.
func TestForgetWithoutGuest(t *testing.T) {
	ours, guest := socketPair(t)
	c := shell.New(ours, shell.Options{})
	t.Cleanup(func() { c.Close() })
	h, err := c.Hold(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	guest.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = h.Forget(ctx, h.Saved())
	if err == nil { // it went while all was dropped
		_, err = h.Ask(ctx, "time")
	}
	if !errors.Is(err, shell.ErrClosed) {
		t.Error(err)
	}
}
