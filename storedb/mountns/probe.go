package mountns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"vm-prebuild/storedb/internal/mount"
)

// probeName is the name that this executable has when it is to find out what it may
// mount.
const probeName = "nix-closure-exec-probe"

// Probe says whether this process may do what [Run] does with a namespace of
// processes. It takes a few milliseconds, and changes nothing.
func Probe(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{probeName}
	c := &command{cmd: cmd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	if !mayMount() {
		c.inUserNamespace()
	}
	out, err := cmd.Output()
	if e := new(exec.ExitError); errors.As(err, &e) {
		return errors.New(strings.TrimSpace(string(out)))
	}
	if e := new(os.PathError); errors.As(err, &e) {
		return mount.NamespaceError(e.Err)
	}
	if err != nil {
		return fmt.Errorf("look for what may be mounted: %w", err)
	}
	return nil
}

// probe is what the process of Probe does.
func probe() {
	err := mountPrivate()
	if err == nil {
		err = mountProc()
	}
	if err == nil {
		return
	}
	fmt.Println(err)
	os.Exit(1)
}
