package mount

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Error says that the kernel does not allow something here.
type Error struct {
	Op     string // what was tried
	Err    error  // what the kernel said
	Reason string // why it did, as far as can be found out; may be empty
	Hint   string // what to do about it; may be empty
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %v", e.Op, e.Err)
	if e.Reason != "" {
		s = fmt.Sprintf("%s: %s (%v)", e.Op, e.Reason, e.Err)
	}
	if e.Hint != "" {
		s += "\nhint: " + e.Hint
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// NamespaceError explains why a process could not be started in namespaces of
// its own.
func NamespaceError(err error) *Error {
	e := &Error{Op: "make a mount namespace", Err: err, Hint: noNamespaceHint}
	switch {
	case errors.Is(err, unix.ENOENT):
		e.Reason = "/proc is not mounted"
	case errors.Is(err, unix.ENOSPC) && sysctl("user/max_user_namespaces") != "0":
		e.Reason = fmt.Sprintf("the limits of user.max_user_namespaces = %s and user.max_mnt_namespaces = %s, or that of 32 levels, are reached",
			sysctl("user/max_user_namespaces"), sysctl("user/max_mnt_namespaces"))
	case errors.Is(err, unix.EINVAL):
		e.Reason = "the kernel has no user namespaces"
	default:
		e.Reason = restriction()
	}
	return e
}

// Refused explains why the mount op was refused.
func Refused(op string, err error) *Error {
	e := &Error{Op: op, Err: err}
	switch {
	case errors.Is(err, unix.ENOSYS):
		e.Reason = "the kernel is older than 5.12, or a seccomp filter hides the system call"
	case errors.Is(err, unix.ENOSPC):
		e.Reason = fmt.Sprintf("a mount namespace has no more than fs.mount-max = %s mounts", sysctl("fs/mount-max"))
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e.Reason, e.Hint = restriction(), noNamespaceHint
	}
	return e
}

const noNamespaceHint = "nix-closure-import --method copy needs no namespace"

// restriction names what keeps this process from mounting in namespaces of its
// own, as far as that can be seen.
func restriction() string {
	switch {
	case sysctl("user/max_user_namespaces") == "0":
		return "user namespaces are switched off (sysctl user.max_user_namespaces = 0)"
	case sysctl("kernel/unprivileged_userns_clone") == "0":
		return "user namespaces are only for root (sysctl kernel.unprivileged_userns_clone = 0)"
	case sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor restricts user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns = 1)"
	case inChroot():
		return "the process is in a chroot, where no user namespace can be made"
	case seccompFilters():
		return "a seccomp filter, that of a container for instance, forbids it"
	}
	return "a chroot or a security module may forbid it"
}

// sysctl returns a kernel parameter, or nothing where there is none.
func sysctl(name string) string {
	value, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(value))
}

// inChroot says whether / is not the root of a mount: then none is mounted on it.
func inChroot() bool {
	found := false
	err := eachMount(func(m string) { found = found || m == "/" })
	return err == nil && !found
}

func seccompFilters() bool {
	status, err := os.ReadFile("/proc/self/status")
	return err == nil && strings.Contains(string(status), "\nSeccomp:\t2\n")
}

// inUserNamespace says whether this is not the initial user namespace, which
// alone has all ids.
func inUserNamespace() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(ids)), " ") != "0 0 4294967295"
}

// checkSubmounts makes sure that no file system is mounted below dir. An
// overlay does not show such, and where a user namespace must not see what they
// cover, the kernel refuses it.
func checkSubmounts(dir *os.File) error {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return fmt.Errorf("look for mounts: %w", err)
	}
	below := strings.TrimSuffix(name, "/") + "/"
	count := 0
	err = eachMount(func(m string) {
		if strings.HasPrefix(m, below) {
			count++
		}
	})
	if err != nil {
		return fmt.Errorf("look for mounts: %w", err)
	}
	if count > 0 {
		return &Error{Op: "mount an overlay", Err: unix.EINVAL,
			Reason: fmt.Sprintf("%d file systems are mounted below %s, and an overlay shows none of them", count, name),
			Hint:   "--method bind works there"}
	}
	return nil
}

// eachMount calls f with each directory that something is mounted on. See
// proc_pid_mountinfo(5): it is the fifth field, with odd characters in octal.
func eachMount(f func(dir string)) error {
	info, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer info.Close()
	lines := bufio.NewScanner(info)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), " ", 6)
		if len(fields) < 6 {
			return fmt.Errorf("/proc/self/mountinfo: unexpected line %q", lines.Text())
		}
		f(unescape(fields[4]))
	}
	return lines.Err()
}

// unescape undoes the kernel's octal escapes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		if s[0] == '\\' && len(s) >= 4 {
			if c, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				s = s[4:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}

// overlayError explains why an overlay for v was refused.
func overlayError(v View, err error) error {
	e := Refused("mount an overlay on "+v.Target, err)
	var fs unix.Statfs_t
	switch {
	case errors.Is(err, unix.ENODEV):
		e.Reason = "the kernel has no overlayfs"
		e.Hint = "--method bind works without"
	case errors.Is(err, unix.EINVAL) && unix.Statfs(v.Scratch, &fs) == nil && fs.Type == unix.OVERLAYFS_SUPER_MAGIC:
		e.Reason = v.Scratch + " is itself on an overlay, which cannot take what is written to another"
		e.Hint = "set TMPDIR to a directory on another file system"
	case errors.Is(err, unix.EINVAL):
		e.Reason = "the kernel's log may say why"
		e.Hint = "--method bind may work"
	}
	return e
}
