package mountns

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestForbidden has the kernel refuse what is needed, for each reason that can be
// had here.
func TestForbidden(t *testing.T) {
	for _, tool := range []string{"unshare", "setpriv", "chroot"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, err)
		}
	}
	const noCapabilities = `exec setpriv --bounding-set -all --inh-caps -all --ambient-caps -all "$0"`
	for _, tt := range []struct {
		name    string
		asRoot  bool   // needs root
		script  string // calls "$0"
		seccomp string
		want    string
	}{
		{
			name:   "user namespaces off",
			script: `exec unshare --user --map-root-user --mount sh -euc 'echo 0 > /proc/sys/user/max_user_namespaces; ` + noCapabilities + `' "$0"`,
			want:   "make a mount namespace: user namespaces are switched off (sysctl user.max_user_namespaces = 0) (no space left on device)\n",
		},
		{
			name:   "mount namespaces off",
			script: `exec unshare --user --map-root-user --mount sh -euc 'echo 0 > /proc/sys/user/max_mnt_namespaces; exec "$0"' "$0"`,
			want:   "and user.max_mnt_namespaces = 0, or that of 32 levels, are reached (no space left on device)\n",
		},
		{
			name: "chroot", asRoot: true,
			script: `exec unshare --mount sh -euc 'for d in bin etc lib lib64 proc tmp usr; do
				if test -e /$d; then mkdir -p "$ROOT/$d"; mount --rbind /$d "$ROOT/$d"; fi; done
				exec chroot --userspec=65534:65534 "$ROOT" "$0"' "$0"`,
			want: "make a mount namespace: the process is in a chroot, where no user namespace can be made (operation not permitted)\n",
		},
		{
			name: "filter of namespaces", seccomp: "clone",
			script: noCapabilities,
			want:   "make a mount namespace: a seccomp filter, that of a container for instance, forbids it (operation not permitted)\n",
		},
		{
			name: "filter of mounts", seccomp: "mount",
			script: `exec "$0"`,
			want:   "make mounts private: a seccomp filter, that of a container for instance, forbids it (operation not permitted)\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.asRoot && os.Geteuid() != 0 {
				missing(t, "not root")
			}
			users(t)
			f := newFixture(t)
			program := filepath.Join(f.tmp, "program")
			binary, err := os.ReadFile("/proc/self/exe")
			check(t, err)
			check(t, os.WriteFile(program, binary, 0o755))
			root := t.TempDir()
			check(t, os.Chmod(filepath.Dir(root), 0o755))
			cmd := f.command(t, user{uid: os.Geteuid()}, request{Command: []string{"true"}})
			cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-euc", tt.script, program}
			cmd.Env = append(cmd.Env, seccompEnv+"="+tt.seccomp, "ROOT="+root)
			out, _ := cmd.CombinedOutput()
			code, text := cmd.ProcessState.ExitCode(), string(out)
			if code != 3 || !strings.Contains(text, tt.want) || !strings.HasSuffix(text, "\nhint: nix-closure-import --method copy needs no namespace\n") {
				t.Errorf("exit %d, %s\nwant %s", code, text, tt.want)
			}
			check(t, os.Remove(program))
			f.checkClean(t)
		})
	}
}

// seccompEnv names the system call that the program may not use.
const seccompEnv = "MOUNTNS_TEST_SECCOMP"

// restrict makes a system call fail with EPERM: mount, or clone for a user
// namespace.
func restrict(call string) error {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		bits   = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		result = unix.BPF_RET | unix.BPF_K
	)
	number := unix.SockFilter{Code: load, K: 0} // of the system call
	flags := unix.SockFilter{Code: load, K: 16} // its first argument
	allow := unix.SockFilter{Code: result, K: unix.SECCOMP_RET_ALLOW}
	refuse := unix.SockFilter{Code: result, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	var filter []unix.SockFilter
	switch call {
	case "":
		return nil
	case "mount":
		filter = []unix.SockFilter{number, {Code: equal, K: unix.SYS_MOUNT, Jf: 1}, refuse, allow}
	case "clone":
		filter = []unix.SockFilter{number, {Code: equal, K: unix.SYS_CLONE, Jf: 2}, flags, {Code: bits, K: unix.CLONE_NEWUSER, Jt: 1}, allow, refuse}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}
