package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What the benchmark tells a played guest in its environment: files to write to.
const (
	startedEnv = "BENCH_STARTED" // the time when the start script ran, in ns since the epoch
	ownEnv     = "BENCH_OWN"     // ns for which the guest waited for the driver between the marks
	serialEnv  = "BENCH_SERIAL"  // for the guest's commands: its serial console
)

// Commands of a script that have these in them are the marks.
var beginMark, endMark = []byte("BENCH-BEGIN"), []byte("BENCH-END")

// guestCommand plays QEMU with a NixOS guest in it: a bash on a terminal, where a
// guest has a virtio console. So what is measured is a driver, and no guest.
type guestCommand struct {
	Arguments []string `arg:"" optional:"" help:"QEMU's."`
}

// Run plays until the driver closes the shell, asks QEMU to quit or kills us.
func (c *guestCommand) Run(ctx context.Context) error {
	if file := os.Getenv(startedEnv); file != "" {
		if err := os.WriteFile(file, []byte(strconv.FormatInt(time.Now().UnixNano(), 10)), 0o644); err != nil {
			return err
		}
	}
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	conns, err := connectDriver(c.Arguments)
	if err != nil {
		return err
	}
	for _, monitor := range conns.qmp {
		go playQMP(monitor, quit)
	}
	for _, monitor := range conns.hmp {
		if _, err := io.WriteString(monitor, "QEMU 0.0 monitor\r\n(qemu) "); err != nil {
			return err
		}
	}
	if conns.qmpListener != nil {
		go func() {
			for {
				monitor, err := conns.qmpListener.Accept()
				if err != nil {
					return
				}
				go playQMP(monitor, quit)
			}
		}()
	}
	return playShell(ctx, conns.shell)
}

// connections are a driver's.
type connections struct {
	shell       net.Conn
	qmp, hmp    []net.Conn
	others      []net.Conn // consoles and ports that a bash has no use for
	qmpListener net.Listener
}

// connectDriver makes the connections that QEMU's arguments ask for.
func connectDriver(arguments []string) (*connections, error) {
	var c connections
	chardevs := map[string]string{} // id → path
	control := map[string]bool{}    // ids of chardevs that speak QMP
	for i, option := range arguments[:max(0, len(arguments)-1)] {
		fields := strings.Split(arguments[i+1], ",")
		values := map[string]string{}
		for _, field := range fields {
			key, value, _ := strings.Cut(field, "=")
			values[key] = value
		}
		var err error
		switch option {
		case "-chardev":
			if fields[0] == "socket" && values["server"] != "on" {
				chardevs[values["id"]] = values["path"]
			}
		case "-mon":
			control[values["chardev"]] = values["mode"] == "control"
		case "-qmp":
			c.qmpListener, err = net.Listen("unix", strings.TrimPrefix(fields[0], "unix:"))
		case "-monitor":
			if path, ok := strings.CutPrefix(fields[0], "unix:"); ok {
				var conn net.Conn
				conn, err = net.Dial("unix", path)
				c.hmp = append(c.hmp, conn)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	for id, path := range chardevs {
		conn, err := net.Dial("unix", path)
		if err != nil {
			return nil, err
		}
		switch {
		case id == "shell":
			c.shell = conn
		case control[id]:
			c.qmp = append(c.qmp, conn)
		default:
			c.others = append(c.others, conn)
		}
	}
	if c.shell == nil {
		return nil, errors.New("the driver has no chardev called shell")
	}
	return &c, nil
}

// playQMP agrees to everything.
func playQMP(conn net.Conn, quit func()) {
	defer conn.Close()
	write := func(v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		_, err = conn.Write(append(text, "\r\n"...))
		return err
	}
	version := map[string]any{"qemu": map[string]int{"major": 7, "minor": 2, "micro": 0}, "package": ""}
	if write(map[string]any{"QMP": map[string]any{"version": version, "capabilities": []string{}}}) != nil {
		return
	}
	for s := bufio.NewScanner(conn); s.Scan(); {
		var request struct {
			Execute string          `json:"execute"`
			ID      json.RawMessage `json:"id,omitempty"`
		}
		if json.Unmarshal(s.Bytes(), &request) != nil {
			return
		}
		result := map[string]any{}
		if request.Execute == "query-status" {
			result = map[string]any{"status": "running", "running": true, "singlestep": false}
		}
		answer := map[string]any{"return": result}
		if request.ID != nil {
			answer["id"] = request.ID
		}
		if write(answer) != nil {
			return
		}
		if request.Execute == "quit" {
			quit()
		}
	}
}

// playShell runs what a guest's backdoor.service runs.
func playShell(ctx context.Context, conn net.Conn) error {
	terminal, name, err := openTerminal()
	if err != nil {
		return fmt.Errorf("open a terminal: %w", err)
	}
	defer terminal.Close()
	bash := exec.CommandContext(ctx, "bash", "-c", `exec <"$0" >"$0"; echo "Spawning backdoor root shell..."; PS1= exec bash --norc "$0"`, name)
	bash.Stderr = os.Stdout // the serial console
	bash.Env = append(os.Environ(), fmt.Sprintf("%s=/proc/%d/fd/1", serialEnv, os.Getpid()))
	bash.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := bash.Start(); err != nil {
		return err
	}
	var watch stopwatch
	go func() {
		defer terminal.Close()
		_, _ = io.Copy(tap{conn, func([]byte) {}, watch.answered}, terminal)
	}()
	go func() {
		defer conn.Close()
		_, _ = io.Copy(tap{terminal, watch.asked, func() {}}, conn)
		_ = bash.Process.Kill() // the driver is gone
	}()
	if err := bash.Wait(); err != nil && ctx.Err() == nil && bash.ProcessState.ExitCode() >= 0 {
		return err
	}
	return nil
}

// tap looks at what is written.
type tap struct {
	to     io.Writer
	before func([]byte)
	after  func()
}

func (t tap) Write(p []byte) (int, error) {
	t.before(p)
	n, err := t.to.Write(p)
	t.after()
	return n, err
}

// A stopwatch measures for how long the guest waits for the driver.
type stopwatch struct {
	mu       sync.Mutex
	running  bool
	answerAt time.Time // of the last answer since the last question
	own      time.Duration
}

func (w *stopwatch) asked(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running && !w.answerAt.IsZero() {
		w.own += time.Since(w.answerAt)
	}
	w.answerAt = time.Time{}
	switch {
	case bytes.Contains(p, beginMark):
		w.running = true
	case w.running && bytes.Contains(p, endMark):
		w.running = false
		if file := os.Getenv(ownEnv); file != "" {
			// Without the file the benchmark has no figure, and says so.
			_ = os.WriteFile(file, []byte(strconv.FormatInt(int64(w.own), 10)), 0o644)
		}
	}
}

func (w *stopwatch) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answerAt = time.Now()
}

// openTerminal makes a terminal that changes nothing of what passes through it,
// and returns its master and the name of its slave.
func openTerminal() (*os.File, string, error) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", err
	}
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	var mode *unix.Termios
	if err == nil {
		mode, err = unix.IoctlGetTermios(fd, unix.TCGETS)
	}
	if err == nil {
		mode.Iflag, mode.Oflag, mode.Lflag = 0, 0, 0
		mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
		err = unix.IoctlSetTermios(fd, unix.TCSETS, mode)
	}
	if err != nil {
		return nil, "", errors.Join(err, master.Close())
	}
	return master, fmt.Sprintf("/dev/pts/%d", number), nil
}
