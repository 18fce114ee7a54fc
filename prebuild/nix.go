package prebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Nix runs the nix command, 2.8 or newer. The zero value is ready to use.
type Nix struct {
	// Args are passed to every nix that evaluates or builds, such as "--override-input",
	// "nixpkgs", "path:…" or "--store", "/mnt".
	Args []string
	// Log gets what nix says while it evaluates and builds; nil means nobody does.
	Log io.Writer
	// Jobs is how many processes evaluate at once; 0 means one for each CPU, as
	// far as there is memory for them.
	Jobs int
}

// NixError is the failure of a nix command.
type NixError struct {
	Command string // "nix build", "nix eval"
	Message string // nix's last error, one line; how it ended when it gave none
	Stderr  string // the end of what it said
	Err     error  // the *exec.ExitError
}

func (e *NixError) Error() string { return e.Command + ": " + e.Message }
func (e *NixError) Unwrap() error { return e.Err }

// ErrNoNix is returned when there is no nix command.
var ErrNoNix = errors.New("there is no nix command in PATH\nhint: install Nix 2.8 or newer, or enter the shell that has it")

// experimental makes the commands that we use available, whatever nix.conf says.
var experimental = []string{"--extra-experimental-features", "nix-command flakes"}

// killDelay is the time that nix gets to end its builders after SIGTERM.
const killDelay = 15 * time.Second

// run runs "nix verb args…" and returns what it wrote to stdout and stderr.
// What it says on stderr also goes to log, unless that is nil.
func (n *Nix) run(ctx context.Context, log io.Writer, verb string, args ...string) (stdout, stderr []byte, err error) {
	return n.runPlain(ctx, log, verb, append(slices.Clone(experimental), args...)...)
}

// runPlain is run with what nix.conf enables, and nothing else.
func (n *Nix) runPlain(ctx context.Context, log io.Writer, verb string, args ...string) (stdout, stderr []byte, err error) {
	var out, all bytes.Buffer
	cmd := exec.CommandContext(ctx, "nix", append([]string{verb}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &all
	if log != nil {
		cmd.Stderr = io.MultiWriter(&all, log)
	}
	// In a group of its own, so that an interrupt reaches nix once, through ctx.
	// The death signal comes when the thread that made the child ends, so this one
	// must not end before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = killDelay

	err = cmd.Run()
	switch {
	case err == nil:
		return out.Bytes(), all.Bytes(), nil
	case ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return nil, nil, ErrNoNix
	}
	return nil, nil, nixError("nix "+verb, all.String(), err)
}

// nixError finds nix's own account of what went wrong: its last line that says
// "error:" and then what (a trace puts "error:" alone on its first line).
func nixError(command, stderr string, err error) error {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	message := err.Error()
	for _, line := range lines {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "error: "); ok {
			message = strings.TrimSuffix(text, ";")
		}
	}
	const tailLines = 20
	return &NixError{
		Command: command,
		Message: message,
		Stderr:  strings.Join(lines[max(0, len(lines)-tailLines):], "\n"),
		Err:     err,
	}
}

// say tells the log what is being done.
func (n *Nix) say(format string, args ...any) {
	if n.Log != nil {
		fmt.Fprintf(n.Log, format+"\n", args...)
	}
}

// outputsOf is the installable that means all outputs of a derivation. Before
// Nix 2.13 the path of a derivation meant its outputs; since then it comes to
// mean the .drv file, and outputs are asked for.
func (n *Nix) outputsOf(ctx context.Context) (func(drv string) string, error) {
	version, err := n.Version(ctx)
	if err != nil {
		return nil, err
	}
	if version.AtLeast(2, 13) {
		return func(drv string) string { return drv + "^*" }, nil
	}
	return func(drv string) string { return drv }, nil
}

// Version is that of a nix command.
type Version struct{ Major, Minor int }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// AtLeast says whether v is the given version or a newer one.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// Version asks nix for its version.
func (n *Nix) Version(ctx context.Context) (Version, error) {
	stdout, _, err := n.runPlain(ctx, nil, "--version")
	if err != nil {
		return Version{}, err
	}
	return parseVersion(string(stdout))
}

// parseVersion reads "nix (Nix) 2.8.0" and what Nix's relatives print: the
// version that counts comes last.
func parseVersion(s string) (v Version, err error) {
	fields := strings.Fields(s)
	if len(fields) > 0 {
		if n, _ := fmt.Sscanf(fields[len(fields)-1], "%d.%d", &v.Major, &v.Minor); n == 2 {
			return v, nil
		}
	}
	return Version{}, fmt.Errorf("cannot read nix's version from %q", strings.TrimSpace(s))
}

// System is the Nix name of the system that this program runs on, such as
// "x86_64-linux".
func System() string {
	arch := runtime.GOARCH
	if name, ok := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "386": "i686"}[arch]; ok {
		arch = name
	}
	return arch + "-" + runtime.GOOS
}
