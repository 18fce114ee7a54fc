// Package startcommand says what to execute for one machine: which program,
// with which arguments and environment. It is where the conventions of
// nixpkgs' run-NAME-vm scripts are written down (nixos/modules/virtualisation/
// qemu-vm.nix): such a script ends in
//
//	exec qemu-system-… … $QEMU_OPTS "$@"
//
// so whatever the driver needs of QEMU is appended as arguments. [Check]
// refuses a script early, [Command.Build] makes the process.
package startcommand

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Command starts one machine.
type Command struct {
	// Script is the path of a start script.
	Script string
	// Line is a shell command line, of create_machine, instead of a Script.
	Line string
	// QEMUArguments are further arguments for QEMU.
	QEMUArguments []string
}

var scriptName = regexp.MustCompile(`^run-(.+)-vm$`)

// Name is the name of the machine that a start command stands for: NAME of
// run-NAME-vm, else "machine".
func (c Command) Name() string {
	word := c.Script
	if word == "" {
		word, _, _ = strings.Cut(strings.TrimSpace(c.Line), " ")
	}
	if m := scriptName.FindStringSubmatch(filepath.Base(word)); m != nil {
		return m[1]
	}
	return "machine"
}

func (c Command) String() string {
	if c.Script != "" {
		return c.Script
	}
	return c.Line
}

// Check returns an error when the command cannot be executed.
func (c Command) Check() error {
	if c.Script == "" {
		if strings.TrimSpace(c.Line) == "" {
			return fmt.Errorf("the start command is empty")
		}
		return nil
	}
	info, err := os.Stat(c.Script)
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		return fmt.Errorf("start script %s: %w\nhint: build the machine first, or check the path in the configuration", c.Script, path.Err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("start script %s is not a regular file", c.Script)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("start script %s is not executable", c.Script)
	}
	return nil
}

// Options are what the driver wants of QEMU.
type Options struct {
	QMPSocket   string // QEMU connects to it as a client
	ShellSocket string // likewise, as the following ones
	// StderrSocket, DataSocket and OutputSocket lead to devices beside the shell's
	// console: see package shell. OutputSocket may be empty.
	StderrSocket, DataSocket, OutputSocket string
	StateDir                               string
	SharedDir                              string
	AllowReboot                            bool
	Display                                bool // there is a display to show the guest on
	ForceTCG                               bool // the guest must not run under KVM
	State                                  State
}

// Build makes the process that starts the machine, in directory o.StateDir
// and with environment env plus what start scripts expect. It fails when the
// script insists on KVM and the guest must not run under it.
func (c Command) Build(env []string, o Options) (*exec.Cmd, error) {
	text, err := c.Text()
	if err != nil {
		return nil, err
	}
	args := append(o.qemuArguments(), c.QEMUArguments...)
	args = append(args, panicArguments(text, env)...)
	args = append(args, o.State.qemuArguments(text, env)...)
	if o.ForceTCG {
		tcg, err := c.tcgArguments(text)
		if err != nil {
			return nil, err
		}
		args = append(args, tcg...)
	}
	var cmd *exec.Cmd
	if c.Script != "" {
		cmd = exec.Command(c.Script, args...)
	} else {
		cmd = exec.Command("/bin/sh", append([]string{"-c", c.Line + ` "$@"`, "sh"}, args...)...)
	}
	cmd.Dir = o.StateDir
	cmd.Env = append(slices.Clone(env),
		"TMPDIR="+o.StateDir,
		"USE_TMPDIR=1", // the script is to use TMPDIR itself, not one below it
		"SHARED_DIR="+o.SharedDir,
	)
	if o.State.Disk != "" {
		cmd.Env = append(cmd.Env, "NIX_DISK_IMAGE="+o.State.Disk)
	}
	return cmd, nil
}

// shellDataPort is DataPort of package shell.
const shellDataPort = "vm-prebuild.data"

// qemuArguments are appended to the start script's own.
func (o Options) qemuArguments() []string {
	args := []string{
		// QEMU connects to us, so there is no socket to poll for.
		"-chardev", "socket,id=qmp,path=" + o.QMPSocket,
		"-mon", "chardev=qmp,mode=control",
		"-chardev", "socket,id=shell,path=" + o.ShellSocket,
		// The backdoor shell: hvc0 in the guest.
		"-device", "virtio-serial",
		"-device", "virtconsole,chardev=shell",
		// Standard error of its commands: hvc1. A console, because there QEMU
		// drops what nobody takes, where a port would stop the guest.
		"-chardev", "socket,id=stderr,path=" + o.StderrSocket,
		"-device", "virtconsole,chardev=stderr",
		// Without entropy, guests of some kernels wait for it at boot.
		"-device", "virtio-rng-pci",
		// The console is our stdin and stdout; without "-monitor none",
		// -nographic would put a monitor there too.
		"-serial", "stdio",
		"-monitor", "none",
	}
	if o.OutputSocket != "" {
		args = append(args,
			// Standard output of commands that still run: hvc2.
			"-chardev", "socket,id=output,path="+o.OutputSocket,
			"-device", "virtconsole,chardev=output",
		)
	}
	args = append(args,
		// Long outputs and files. A port has flow control, which a console lacks.
		"-chardev", "socket,id=data,path="+o.DataSocket,
		"-device", "virtserialport,chardev=data,name="+shellDataPort,
		// What follows a panic is left to the guest: it may reboot.
		"-action", "panic=none",
	)
	if !o.AllowReboot {
		args = append(args, "-no-reboot")
	}
	if !o.Display {
		args = append(args, "-nographic")
	}
	return args
}

var (
	accelOption = regexp.MustCompile(`(^|\s)--?accel[\s=]+(\S+)`)
	hostCPU     = regexp.MustCompile(`(^|\s)--?cpu[\s=]+host\b`)
)

var x86 = regexp.MustCompile(`qemu-system-(x86_64|i386)\b`)

// panicArguments have QEMU tell of a guest's panic at once, where we know the
// device for that: pvpanic is an ISA device. QEMU refuses a second one.
func panicArguments(text string, env []string) []string {
	if mentions(text, env, "pvpanic") || !x86.MatchString(text) {
		return nil
	}
	return []string{"-device", "pvpanic"}
}

// mentions says whether a start command gives QEMU an option with that word.
func mentions(text string, env []string, word string) bool {
	return strings.Contains(text, word) || slices.ContainsFunc(env, func(v string) bool {
		return strings.HasPrefix(v, "QEMU_OPTS=") && strings.Contains(v, word)
	})
}

// maxScript bounds how much of a start script is looked at, in bytes.
const maxScript = 1 << 20

// Text is the shell code that starts the machine: that of the script.
func (c Command) Text() (string, error) {
	if c.Script != "" {
		b, err := os.ReadFile(c.Script)
		return string(b), err
	}
	// A line that begins with a script's path does what the script does.
	word, _, _ := strings.Cut(strings.TrimSpace(c.Line), " ")
	if info, err := os.Stat(word); err == nil && info.Mode().IsRegular() && info.Size() < maxScript {
		if b, err := os.ReadFile(word); err == nil {
			return c.Line + "\n" + string(b), nil
		}
	}
	return c.Line, nil
}

// tcgArguments have QEMU emulate the guest, whatever the start command says.
func (c Command) tcgArguments(text string) ([]string, error) {
	// QEMU merges -machine options and the last one counts, which overrides
	// -machine accel=kvm:tcg and -enable-kvm. It refuses to do so for -accel.
	args := []string{"-machine", "accel=tcg"}
	if accel := accelOption.FindStringSubmatch(text); accel != nil {
		if !strings.HasPrefix(accel[2], "tcg") {
			return nil, fmt.Errorf("start command %s has -accel %s, which nothing can override, and the guest must not run under KVM\nhint: write -machine accel=kvm:tcg instead", c, accel[2])
		}
		args = nil
	}
	if hostCPU.MatchString(text) {
		args = append(args, "-cpu", "max") // -cpu host exists under KVM only
	}
	return args, nil
}
