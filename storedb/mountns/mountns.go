// Package mountns runs a command in a mount namespace where a directory is a
// writable Nix store that has a closure, registered, none of which has been
// copied. [Run] is its entry point, and [Main] comes first in the main function
// of every program that calls it.
//
// Three things make the store. Its state (database, locks, directories) is
// complete in a scratch directory before the command starts, see
// [storedb.CreateState]. Its store paths are those of another store, shown in it
// by an overlay or by single mounts, see [mount.View]. And what Nix needs to
// find it is in the environment, see [Environment]. The scratch directory takes
// all that the command writes to the store, and is removed when it has ended.
//
// Root mounts in a mount namespace alone. Any other user gets a user namespace
// too, with the same ids inside as outside, in which the command has no
// privileges either: this also works in a Nix build sandbox.
package mountns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vm-prebuild/storedb"
	"vm-prebuild/storedb/internal/mount"
)

// Method is how the store paths come into the store.
type Method string

// The methods. They differ in what they cost and in what the kernel allows,
// not in what the command sees.
const (
	MethodAuto    Method = "auto" // what is possible, and of that the cheaper
	MethodOverlay Method = Method(mount.Overlay)
	MethodBind    Method = Method(mount.Bind)
)

// Options says what to run, and with which closure.
type Options struct {
	ClosureInfo string           // directory built by closureInfo
	Closure     *storedb.Closure // the same, if it is known already
	From        string           // root of the store that has the files; empty means /
	DBImage     string           // directory made by [storedb.WriteImage]; may be empty
	Method      Method           // empty means MethodAuto

	// Store is the root of the store as the command sees it, / included. It is
	// made if it does not exist and removed afterwards. If it is empty, the root
	// is somewhere in the directory for temporary files.
	Store string

	// Dir is where the scratch directory is made; empty means the directory for
	// temporary files. It exists.
	Dir string

	Command        []string // name, looked up in PATH in the namespace, and arguments
	Env            []string // nil means that of this process; Environment is added
	Stdin          *os.File // nil means /dev/null; of the other two, too
	Stdout, Stderr *os.File

	// Environment returns what is added to Env for a store below root; nil means
	// [Environment].
	Environment func(root string, env []string) map[string]string

	// ReadOnly are directories and files that the command sees at their places,
	// but cannot write to, whoever it is.
	ReadOnly []string

	// PIDNamespace gives the command a namespace of processes, and a /proc for it.
	// When the command ends, or this process, the kernel kills all that the command
	// has started, whatever sessions and users these have made their own.
	PIDNamespace bool

	// Signals, if not nil, is where this process gets its signals from. The
	// command gets them, too.
	Signals <-chan os.Signal

	// Collect, if not nil, is called when the command has succeeded, before what it
	// has written is removed.
	Collect func(*Written) error
}

// Written is what a command has left in its store.
type Written struct {
	Root string // has the state of the store, as for [storedb.QueryClosure]
	dirs []string
}

// Path is where the files of a store path are that the command has made; empty if
// there are none.
func (w *Written) Path(storePath string) string {
	for _, dir := range w.dirs {
		path := filepath.Join(dir, filepath.Base(storePath))
		if _, err := os.Lstat(path); err == nil {
			return path
		}
	}
	return ""
}

// Run runs a command as o says, waits for it and returns its exit code, or 128
// plus the number of the signal that killed it. An error means that it was not
// started, or that it succeeded and its scratch directory could not be removed,
// or it is that of o.Collect.
// For a command that does not exist, or cannot be executed, the error has a
// method ExitCode that returns 127 or 126.
//
// When ctx ends before the command has started, it does not start. Later it
// makes no difference: who wants the command to end sends it a signal. If this
// process is killed, the kernel kills the command.
func Run(ctx context.Context, o Options) (code int, err error) {
	if len(o.Command) == 0 {
		return 0, errors.New("run a command: none given")
	}
	paths, err := o.storePaths()
	if err != nil {
		return 0, err
	}
	s, err := newScratch(o.Dir, o.Store)
	if err != nil {
		return 0, err
	}
	defer func() {
		// What cannot be removed now, the next does; that a command has failed
		// is to be known.
		if removeErr := s.remove(); code == 0 {
			err = errors.Join(err, removeErr)
		}
	}()

	c, err := newCommand(o, s)
	if err != nil {
		return 0, err
	}
	// The kernel kills the command when the *thread* that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.start(); err != nil {
		return 0, err
	}
	if err := c.prepare(ctx, o, s, paths); err != nil {
		c.kill()
		return 0, err
	}
	code = c.wait(o.Signals)
	if code == 0 && o.Collect != nil {
		err = o.Collect(&Written{Root: s.root(), dirs: []string{filepath.Join(s.view(), "upper"), filepath.Join(s.root(), "nix", "store")}})
	}
	return code, err
}

// storePaths are those of the closure.
func (o *Options) storePaths() ([]string, error) {
	if o.Closure == nil {
		return storedb.ReadStorePaths(filepath.Join(o.ClosureInfo, storedb.StorePathsFile))
	}
	paths := make([]string, len(o.Closure.Paths))
	for i, info := range o.Closure.Paths {
		paths[i] = info.Path
	}
	return paths, nil
}

// command is a process that goes through the stages of [Main] and then becomes
// the command.
type command struct {
	cmd    *exec.Cmd
	orders *os.File // what it is to do: a setup, and a second value when it may go on
	report *os.File // what it could not do: a failure, or nothing
	theirs []*os.File
}

func newCommand(o Options, s *scratch) (*command, error) {
	ordersRead, orders, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("run a command: %w", err)
	}
	report, reportWrite, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("run a command: %w", err), ordersRead.Close(), orders.Close())
	}
	c := &command{orders: orders, report: report, theirs: []*os.File{ordersRead, reportWrite}}
	env := o.Env
	if env == nil {
		env = os.Environ()
	}
	environment := o.Environment
	if environment == nil {
		environment = Environment
	}
	c.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: append([]string{stageName}, o.Command...),
		Env: apply(env, environment(s.visible, env)),
		// Descriptors 3 and 4, and 5, which the command and its children keep: as
		// long as one of them lives, the directory is not taken for a stale one.
		ExtraFiles: append(c.theirs[:len(c.theirs):len(c.theirs)], s.lock),
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS,
			Pdeathsig:  unix.SIGKILL,
		},
	}
	// A nil *os.File is not a nil interface.
	if o.Stdin != nil {
		c.cmd.Stdin = o.Stdin
	}
	if o.Stdout != nil {
		c.cmd.Stdout = o.Stdout
	}
	if o.Stderr != nil {
		c.cmd.Stderr = o.Stderr
	}
	if o.PIDNamespace {
		c.cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID
	}
	if !mayMount() {
		c.inUserNamespace()
	}
	return c, nil
}

// inUserNamespace has the command start in a user namespace of its own, in
// which only our user and group exist. They have capabilities there until the
// command itself runs: those that mounting takes, and those that an overlay
// uses to keep its files.
func (c *command) inUserNamespace() {
	attr := c.cmd.SysProcAttr
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID}
}

func (c *command) start() error {
	err := c.cmd.Start()
	for _, f := range c.theirs {
		f.Close()
	}
	if err != nil {
		c.orders.Close()
		c.report.Close()
		// Go says that the executable could not be forked.
		if e := new(os.PathError); errors.As(err, &e) {
			err = e.Err
		}
		return mount.NamespaceError(err)
	}
	return nil
}

// prepare makes the state of the store while the process mounts, and returns
// when the process has become the command, or has failed to.
func (c *command) prepare(ctx context.Context, o Options, s *scratch, paths []string) error {
	defer c.orders.Close()
	defer c.report.Close()
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { _ = c.cmd.Process.Kill() })
	group.Go(func() error {
		orders := json.NewEncoder(c.orders)
		setup, err := s.setup(o, paths)
		if err != nil {
			return err
		}
		if err := orders.Encode(setup); err != nil {
			return fmt.Errorf("run a command: %w", err)
		}
		if err := s.createState(ctx, o, paths); err != nil {
			return err
		}
		if err := orders.Encode(true); err != nil {
			return fmt.Errorf("run a command: %w", err)
		}
		return nil
	})
	var failed *failure // says more than that the process has ended
	group.Go(func() error {
		text, err := io.ReadAll(c.report)
		if err == nil && len(text) > 0 {
			err = json.Unmarshal(text, &failed)
		}
		if err != nil {
			return fmt.Errorf("run a command: %w", err)
		}
		if failed != nil {
			return failed
		}
		if !stop() { // it was killed, and is not the command
			return context.Cause(ctx)
		}
		return nil
	})
	err := group.Wait()
	if failed != nil {
		return failed
	}
	return err
}

// kill ends a process that has not become the command.
func (c *command) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// wait passes on signals until the command has ended, and returns its exit code.
func (c *command) wait(signals <-chan os.Signal) int {
	ended := make(chan struct{})
	passedOn := make(chan struct{})
	go func() {
		defer close(passedOn)
		for {
			select {
			case sig := <-signals:
				if !fromTerminal(sig) {
					_ = c.cmd.Process.Signal(sig) // it may have ended
				}
			case <-ended:
				return
			}
		}
	}()
	_ = c.cmd.Wait() // what matters of it is in the state
	close(ended)
	<-passedOn
	status := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// fromTerminal says whether a terminal has sent sig: then the command, which is
// in the same process group, has it already.
func fromTerminal(sig os.Signal) bool {
	if sig != unix.SIGINT && sig != unix.SIGQUIT {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	foreground, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && foreground == unix.Getpgrp()
}

// mayMount says whether this process may make a mount namespace and mount in it.
func mayMount() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	err := unix.Capget(&header, &data[0])
	return err == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// failure is an error of the process that was to become the command.
type failure struct {
	Message string `json:"message"`
	Code    int    `json:"code"`
}

func (f *failure) Error() string { return f.Message }

// ExitCode is what a program that was asked to run the command exits with.
func (f *failure) ExitCode() int { return f.Code }

// baseNames are the names of store paths in the store directory.
func baseNames(paths []string) []string {
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = strings.TrimPrefix(path, storedb.StoreDir+"/")
	}
	return names
}
