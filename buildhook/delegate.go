package buildhook

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vm-prebuild/buildhook/protocol"
)

// delegate is Nix's own hook, which knows the user's remote builders. It runs
// between questions as ours does, and gets what Nix would have sent it.
type delegate struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	outFile *os.File
	drv     string // that it was asked about
	mute    bool   // it has said that it will never take anything
}

// ask passes a question on and returns whether the derivation was taken; then the
// build is over. If it was not, Nix has its answer.
func (h *hook) ask(ctx context.Context, try protocol.Try) (taken bool, err error) {
	reply := protocol.Decline
	if h.hasBuilders() {
		if h.delegate == nil {
			if h.delegate, err = h.startDelegate(ctx); err != nil {
				h.say(protocol.LevelWarn, "remote builders are not used: %v", err)
				h.delegate = &delegate{mute: true}
			}
		}
		if reply, err = h.delegate.ask(h.Replies, try); err != nil {
			h.say(protocol.LevelWarn, "Nix's own build hook: %v", err)
			h.delegate.mute, reply = true, protocol.Decline
		}
	}
	if _, err := io.WriteString(h.Replies, string(reply)); err != nil {
		return false, fmt.Errorf("answer Nix: %w", err)
	}
	if reply != protocol.Accept {
		return false, nil
	}
	h.log.note(entry{Drv: try.Drv, Event: "delegated", Reason: "a remote builder takes it"})
	return true, h.delegate.passOn(ctx, h)
}

// hasBuilders says whether there may be remote builders. The default is a file that
// need not exist.
func (h *hook) hasBuilders() bool {
	for builder := range strings.FieldsFuncSeq(h.settings["builders"], func(c rune) bool { return c == '\n' || c == ';' }) {
		builder = strings.TrimSpace(builder)
		if file, ok := strings.CutPrefix(builder, "@"); ok {
			if _, err := os.Stat(strings.TrimSpace(file)); err != nil {
				continue
			}
		}
		if builder != "" {
			return true
		}
	}
	return false
}

// startDelegate starts Nix's own hook with the settings that Nix has sent. It has
// both ends of the builder's log where Nix would have put them.
func (h *hook) startDelegate(ctx context.Context) (*delegate, error) {
	command, err := h.ownHook()
	if err != nil {
		return nil, err
	}
	out, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], strconv.Itoa(h.Verbosity))...)
	// It dies with this process: the kernel looks at the thread that has started it.
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = theirs, theirs
	// Descriptor 3 is nothing.
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	defer null.Close()
	cmd.ExtraFiles = []*os.File{null, h.BuildLog, h.LogEnd}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	d := &delegate{cmd: cmd, in: in, out: bufio.NewReader(out), outFile: out}
	w := bufio.NewWriter(in)
	if err = h.settings.Write(w); err == nil {
		err = w.Flush()
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// ask sends a question, and passes on what is not the reply. That nothing will ever
// be taken is kept from Nix, which would not even ask us any more.
func (d *delegate) ask(replies io.Writer, try protocol.Try) (protocol.Reply, error) {
	if d.mute {
		return protocol.Decline, nil
	}
	d.drv = try.Drv
	w := bufio.NewWriter(d.in)
	err := try.Write(w)
	if err == nil {
		err = w.Flush()
	}
	for err == nil {
		var line string
		if line, err = d.out.ReadString('\n'); err != nil {
			break
		}
		switch reply := protocol.Reply(line); {
		case reply == protocol.Accept, reply == protocol.Postpone, reply == protocol.Decline:
			return reply, nil
		case strings.HasPrefix(line, "# "):
			d.mute = true
			return protocol.Decline, nil
		}
		_, err = io.WriteString(replies, line)
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("it ended without an answer")
	}
	return protocol.Decline, err
}

// passOn connects Nix with its own hook until that ends, and ends as it does. If Nix
// ends first, so does its hook.
func (d *delegate) passOn(ctx context.Context, h *hook) error {
	ctx, stop, err := h.whileNixLives(ctx)
	if err != nil {
		return errors.Join(err, d.close())
	}
	defer stop()
	defer terminate(ctx, func(sig os.Signal) { _ = d.cmd.Process.Signal(sig) })() // it may have ended
	// What it has started may keep its output open.
	defer context.AfterFunc(ctx, func() { _ = d.outFile.Close() })()
	fed := make(chan error, 1)
	go func() {
		_, err := io.Copy(d.in, h.in.Rest())
		fed <- errors.Join(err, d.in.Close())
	}()
	err = h.closeLogEnd()
	_, outErr := io.Copy(h.Replies, d.out)
	if outErr != nil {
		_ = d.outFile.Close() // it does not wait for a reader then
	}
	err = errors.Join(err, d.cmd.Wait())
	if cause := context.Cause(ctx); cause != nil {
		h.log.note(entry{Drv: d.drv, Event: "failed", Reason: cause.Error()})
		return &buildError{cause, exitOther}
	}
	if e := new(exec.ExitError); errors.As(err, &e) {
		return &buildError{err, max(e.ExitCode(), 1)}
	}
	return errors.Join(err, outErr, <-fed)
}

// close ends a delegate that has taken nothing. There may be none.
func (d *delegate) close() error {
	if d == nil || d.cmd == nil {
		return nil
	}
	_ = d.in.Close() // it ends then
	_ = d.cmd.Wait() // how, does not matter
	return d.outFile.Close()
}
