package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/qmp"
)

// errPanicked ends a process whose guest tells of it through a pvpanic device.
var errPanicked = errors.New("the guest's kernel panicked")

// heed reacts to an event of QEMU that means the end of the test for the
// machine, or explains it.
func (p *process) heed(e qmp.Event) {
	switch e.Event {
	case "GUEST_PANICKED":
		if p.started.AllowReboot {
			p.cfg.Bus.Log(event.Warning, p.cfg.Name, "the guest's kernel panicked; it may reboot")
			return
		}
		panicked := errPanicked
		if disk := p.diskError.Load(); disk != nil {
			panicked = fmt.Errorf("%w: %s", errPanicked, *disk)
		}
		p.fail(panicked)
	case "SHUTDOWN":
		if reason, ok := e.Data["reason"].(string); ok {
			p.shutdown.Store(&reason)
		}
	case "BLOCK_IO_ERROR":
		text := blockError(e)
		if p.diskError.Swap(&text) == nil {
			p.cfg.Bus.Log(event.Error, p.cfg.Name, text)
		}
	case "STOP":
		// A script may stop its machine, and QEMU does so on its own when it
		// cannot go on. Asking needs another goroutine than that of events.
		go func() {
			ctx, cancel := context.WithTimeout(p.ctx, answerLimit)
			defer cancel()
			status, err := p.monitor.QueryStatus(ctx)
			if err != nil {
				return // its end has a reader of its own
			}
			switch status {
			case "internal-error":
				p.fail(fmt.Errorf("QEMU stopped the guest: internal error, which is told above or on QEMU's standard error\nhint: with KVM this is often an instruction that the host's KVM cannot emulate; try QEMU_OPTS=\"-machine accel=tcg\""))
			case "io-error":
				why := "I/O error"
				if text := p.diskError.Load(); text != nil {
					why = *text
				}
				p.fail(fmt.Errorf("QEMU stopped the guest: %s", why))
			}
		}()
	}
}

// fail ends what waits for the machine, with err.
func (p *process) fail(err error) {
	p.cancel(&machine.Error{Machine: p.cfg.Name, Err: err, Console: machine.Tail(p.console.lines())})
}

// blockError tells a BLOCK_IO_ERROR of QEMU's qapi/block-core.json.
func blockError(e qmp.Event) string {
	text := func(key string) string {
		s, _ := e.Data[key].(string)
		return s
	}
	disk := text("device")
	if disk == "" {
		disk = text("node-name")
	}
	reason := text("reason")
	if full, _ := e.Data["nospace"].(bool); full {
		reason = "no space left on the host"
	}
	return fmt.Sprintf("QEMU could not %s the disk %q: %s", text("operation"), disk, reason)
}

// Ailment implements machine.Patient.
func (m *Machine) Ailment() string {
	p := m.current()
	if p == nil {
		return ""
	}
	if text := p.diskError.Load(); text != nil {
		return *text
	}
	return p.stalled()
}

// stalled says why QEMU does not get to run; "" if it does.
func (p *process) stalled() string {
	pid := int(p.qemuPID.Load())
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// "PID (NAME) STATE …", and the name may hold anything.
	text := string(stat)
	rest := text[strings.LastIndexByte(text, ')')+1:]
	if state := strings.Fields(rest); len(state) > 0 && (state[0] == "T" || state[0] == "t") {
		return fmt.Sprintf("QEMU (pid %d) is stopped by a signal or a debugger", pid)
	}
	return ""
}

// exitText says how the process ended, and why as far as that can be told.
func (p *process) exitText(err error) string {
	text := "exit code 0"
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		text = fmt.Sprintf("exit code %d", exit.ExitCode())
	case err != nil:
		text = err.Error() // "signal: killed"
	}
	hint := ""
	lines := p.console.lines()
	if reason := panicReason(lines); reason != "" {
		text += ": the guest's kernel panicked: " + reason
	} else if reason := p.shutdown.Load(); reason != nil && !p.asked.Load() {
		if end, ok := shutdowns[*reason]; ok {
			text += ": " + end.text
			hint = end.hint
		}
	}
	if disk := p.diskError.Load(); disk != nil {
		text += ": " + *disk
	}
	if !p.met() && slices.ContainsFunc(lines, lacksVLAN) {
		hint = "the start command wants a VLAN that this test does not have; add its number to --vlans, or to the configuration's vlans"
	}
	if hint != "" {
		text += "\nhint: " + hint
	}
	if status, ok := exitStatus(err); ok && status.Signal() == syscall.SIGBUS && p.run.state.RAM != "" {
		text += fmt.Sprintf("\nhint: the guest's memory is the file %s: no space was left in %s, or the file was cut short", p.run.state.RAM, filepath.Dir(p.run.state.RAM))
	}
	if status, ok := exitStatus(err); ok && status.Signal() == syscall.SIGKILL && oomKills() > p.oomKills {
		text += "\nhint: this host's kernel has killed processes for want of memory meanwhile; give the machines less, or run fewer at once"
	}
	return text
}

// shutdowns are what QEMU's event SHUTDOWN gives as reasons (qapi/run-state.json)
// when it ends with exit code 0, and what scripts can do about them.
var shutdowns = map[string]struct{ text, hint string }{
	"guest-shutdown":        {text: "the guest powered off", hint: "a script that expects this calls shutdown(), or wait_for_shutdown() after the command that does it"},
	"guest-reset":           {text: "the guest rebooted", hint: "start(allow_reboot=True) lets it; a script that expects the machine to end calls wait_for_shutdown()"},
	"host-qmp-system-reset": {text: "its monitor was told to reset the guest", hint: "start(allow_reboot=True) lets the guest start anew"},
	"host-qmp-quit":         {text: "its monitor was told to quit", hint: "crash() does this as something that the script expects"},
	"host-signal":           {text: "a signal told it to end"},
	"host-ui":               {text: "its window was closed"},
}

// lacksVLAN finds what QEMU says of a network whose socket a start script was
// not told: the variable that would name it is not set.
func lacksVLAN(line string) bool {
	return strings.Contains(line, "-netdev vde,") && strings.Contains(line, "sock=: ")
}

func exitStatus(err error) (syscall.WaitStatus, bool) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return status, ok && status.Signaled()
}

// panicLines is how many lines of the console may follow a panic's message:
// the state of the CPU and a stack.
const panicLines = 200

// panicReason finds what Linux says when it panics.
func panicReason(console []string) string {
	for _, line := range console[max(0, len(console)-panicLines):] {
		if _, reason, ok := strings.Cut(line, "Kernel panic - not syncing: "); ok {
			return reason
		}
	}
	return ""
}

// oomKills counts the processes that this host's kernel has killed for want of
// memory since it booted; 0 if that cannot be told.
func oomKills() int64 {
	text, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			count, _ := strconv.ParseInt(strings.TrimSpace(n), 10, 64)
			return count
		}
	}
	return 0
}
