package vsock

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// standIn puts a program in place of vhost-device-vsock, which Debian does not
// have: a script that writes down its arguments and then does as body says.
func standIn(t *testing.T, body string) (arguments string) {
	t.Helper()
	dir := t.TempDir()
	arguments = filepath.Join(dir, "arguments")
	text := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$@\" >%s\n%s\n", arguments, body)
	if err := os.WriteFile(filepath.Join(dir, program), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return arguments
}

// sockets makes what the machines are attached to.
const sockets = `for a; do case $a in guest-cid=*) s=${a#*,socket=}; : >"${s%%,*}" ;; esac; done`

type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) add(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, text)
}

// await waits for a line with text in it.
func (l *log) await(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		l.mu.Lock()
		all := strings.Join(l.lines, "\n")
		l.mu.Unlock()
		if strings.Contains(all, text) {
			return
		}
	}
	t.Fatalf("no line with %q in %q", text, l.lines)
}

func options(t *testing.T, l *log, machines ...string) Options {
	t.Helper()
	return Options{Dir: t.TempDir(), Machines: machines, Spawn: (*exec.Cmd).Start, Warn: l.add}
}

func TestDevice(t *testing.T) {
	arguments := standIn(t, sockets+"\necho listening\nexec sleep 600")
	var l log
	o := options(t, &l, "client", "server")
	d, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(arguments)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer("DIR", o.Dir).Replace(`--vm
guest-cid=3,socket=DIR/client_guest.socket,uds-path=DIR/client_host.socket
--vm
guest-cid=4,socket=DIR/server_guest.socket,uds-path=DIR/server_host.socket
`)
	if string(got) != want {
		t.Errorf("arguments\n%s\nwant\n%s", got, want)
	}
	if got := strings.Join(d.QEMUArguments("server"), " "); got != "-chardev socket,id=vsock_ssh,path="+o.Dir+"/server_guest.socket -device vhost-user-vsock-pci,chardev=vsock_ssh" {
		t.Errorf("QEMU arguments %s", got)
	}
	l.await(t, "vhost-device-vsock: listening")
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if d.cmd.ProcessState == nil {
		t.Error("the process runs on")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) != 1 {
		t.Errorf("log %q", l.lines)
	}
}

func TestDeviceThatEnds(t *testing.T) {
	standIn(t, sockets+"\nsleep 0.2\necho the host is gone >&2\nexit 7")
	var l log
	d, err := Start(t.Context(), options(t, &l, "m"))
	if err != nil {
		t.Fatal(err)
	}
	l.await(t, `the SSH backdoor with it: exit status 7; it printed "the host is gone"`)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestDeviceThatIgnoresTheEnd(t *testing.T) {
	standIn(t, "trap '' TERM\n"+sockets+"\nwhile :; do sleep 0.1; done")
	var l log
	d, err := Start(t.Context(), options(t, &l, "m"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestStartFails(t *testing.T) {
	var l log
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name, body string
		ctx        context.Context
		machine    string
		want       string
	}{
		{"ends at once", "echo no such flag >&2; exit 2", t.Context(), "m", `ended before it was ready: exit status 2; it printed "no such flag"`},
		{"never ready", "exec sleep 600", canceled, "m", "vhost-device-vsock: context canceled"},
		{"long name", "exec sleep 600", t.Context(), strings.Repeat("m", 100), "is longer than 107 bytes\nhint: set XDG_RUNTIME_DIR"},
	} {
		t.Run(test.name, func(t *testing.T) {
			standIn(t, test.body)
			_, err := Start(test.ctx, options(t, &l, test.machine))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	t.Run("not installed", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		_, err := Start(t.Context(), options(t, &l, "m"))
		if err == nil || !strings.Contains(err.Error(), "vhost-device-vsock") || !strings.Contains(err.Error(), "\nhint: install") {
			t.Error(err)
		}
	})
}
