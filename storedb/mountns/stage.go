package mountns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"vm-prebuild/storedb"
	"vm-prebuild/storedb/internal/mount"
)

// stageName is the name that this executable has when it is to become the
// command.
const stageName = "nix-closure-exec-stage"

// setup is what the process does before it becomes the command. It gets it on a
// pipe, and it goes on when that has a second value.
type setup struct {
	View   mount.View `json:"view"`  // without its names
	Names  string     `json:"names"` // those, between slashes: as many strings they would take long to decode
	Method Method     `json:"method"`
	Binds  []bind     `json:"binds"`
	Parent int        `json:"parent"` // the process that waits

	ReadOnly []string `json:"readOnly"` // what is to be mounted on itself

	UserNamespace bool `json:"userNamespace"` // this process is in one of its own
	PIDNamespace  bool `json:"pidNamespace"`  // likewise
}

// bind is a mount of the directory or file Source, and all mounted below it.
type bind struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

// Main becomes the command if [Run] has started this process for that, and
// returns at once otherwise.
func Main() {
	switch os.Args[0] {
	case stageName:
	case probeName:
		probe()
		os.Exit(0)
	default:
		return
	}
	// Capabilities and the signal at the parent's death are those of a thread.
	runtime.LockOSThread()
	orders, report := os.NewFile(3, "orders"), os.NewFile(4, "report")
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
	err := become(os.Args[1:], orders)
	f := &failure{Message: err.Error(), Code: 3}
	if e := (interface{ ExitCode() int })(nil); errors.As(err, &e) {
		f.Code = e.ExitCode()
	}
	// If nobody reads it, nobody waits.
	_ = json.NewEncoder(report).Encode(f)
	os.Exit(f.Code)
}

// become makes the mounts and becomes the command.
func become(command []string, orders *os.File) error {
	decoder := json.NewDecoder(orders)
	var s setup
	if err := decoder.Decode(&s); err != nil {
		return fmt.Errorf("prepare a command: %w", err)
	}
	if s.Names != "" {
		s.View.Names = strings.Split(s.Names, "/")
	}
	if err := s.mount(context.Background()); err != nil {
		return err
	}
	var goOn bool
	if err := decoder.Decode(&goOn); err != nil {
		return fmt.Errorf("prepare a command: %w", err)
	}
	file, err := exec.LookPath(command[0])
	if errors.Is(err, exec.ErrDot) {
		err = nil
	}
	if err != nil {
		return &failure{Code: notFound(err), Message: "run a command in the store's mount namespace: " + err.Error() + s.hint(command[0])}
	}
	if s.UserNamespace {
		if err := dropCapabilities(); err != nil {
			return fmt.Errorf("drop capabilities: %w", err)
		}
	}
	// That of the first thread is no longer the parent's death signal of this one.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("prepare a command: %w", err)
	}
	if s.orphaned(orders) {
		return errors.New("prepare a command: the parent process has died")
	}
	err = unix.Exec(file, command, os.Environ())
	return &failure{Code: notFound(err), Message: fmt.Sprintf("run %s: %v%s", file, err, s.hint(file))}
}

// orphaned says whether the parent has died. It writes no more orders, but keeps
// its end of their pipe open until we have become the command.
func (s setup) orphaned(orders *os.File) bool {
	if !s.PIDNamespace {
		return os.Getppid() != s.Parent
	}
	fds := []unix.PollFd{{Fd: int32(orders.Fd())}}
	_, err := unix.Poll(fds, 0)
	return err != nil || fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

// mount makes the store visible.
func (s setup) mount(ctx context.Context) error {
	if err := mountPrivate(); err != nil {
		return err
	}
	var err error
	switch s.Method {
	case MethodOverlay:
		err = s.View.Overlay(ctx)
	case MethodBind:
		err = s.View.Bind(ctx)
	default:
		_, err = s.View.Mount(ctx)
	}
	if e := new(mount.MissingError); errors.As(err, &e) {
		return &storedb.InputError{File: e.Source, Reason: e.Name + " is in the closure but not there", Err: err,
			Hint: "give the root of the store that has the closure with --from"}
	}
	if err != nil {
		return err
	}
	for _, b := range s.Binds {
		if err := unix.Mount(b.Source, b.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return mount.Refused("bind "+b.Source+" to "+b.Target, err)
		}
	}
	for _, path := range s.ReadOnly {
		if err := mount.ReadOnly(path); err != nil {
			return err
		}
	}
	if s.PIDNamespace {
		return mountProc() // not before: names below /proc/self are used to mount the rest
	}
	return nil
}

// mountPrivate keeps what is mounted from then on from appearing outside.
func mountPrivate() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return mount.Refused("make mounts private", err)
	}
	return nil
}

// mountProc mounts a /proc for this namespace of processes.
func mountProc() error {
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return mount.Refused("mount /proc", err)
	}
	return nil
}

// hint says what may be the matter with a command that is not there.
func (s setup) hint(file string) string {
	for _, b := range s.Binds {
		if b.Target == "/nix" {
			return "\nhint: only the paths of the closure are in " + storedb.StoreDir + " now; is " + file + " in it, with all that it needs?"
		}
	}
	if !strings.Contains(file, "/") {
		return ""
	}
	return "\nhint: does " + file + " exist, and the interpreter that it names?"
}

// notFound is the exit code of a command that cannot be run, as in a shell.
func notFound(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return 127
	}
	return 126
}

// dropCapabilities leaves the command those capabilities that its user has by
// itself.
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return unix.Capset(&header, &data[0])
}
