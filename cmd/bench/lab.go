package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// labEnv names the directory of the lab in the environment of the program that
// runs in it.
const labEnv = "VM_PREBUILD_BENCH_LAB"

// A lab is a directory in memory, seen by this process and its children only,
// with all that is measured in it: images of file systems, their mount points
// and copies of the programs. It ends with the process, however that ends.
//
// Images are in memory so that the speed of a disk, which both sides have to
// wait for alike, does not hide what they do themselves.
type lab struct {
	dir   string
	bin   string // copies of our programs, where any user can run them
	env   []string
	pause time.Duration // before each run
}

// enterLab replaces this process by the same program in a mount namespace of
// its own, unless that has been done already.
func enterLab() (*lab, error) {
	if dir := os.Getenv(labEnv); dir != "" {
		return openLab(dir)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("mounting file systems needs root\nhint: run it with sudo")
	}
	if err := needTools(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "vm-prebuild-bench-")
	if err != nil {
		return nil, err
	}
	// Namespaces belong to threads; the one that calls exec becomes the process.
	runtime.LockOSThread()
	if err := isolate(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("enter a mount namespace: %w", err), os.Remove(dir))
	}
	err = unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), labEnv+"="+dir))
	return nil, fmt.Errorf("start again in a mount namespace: %w", err)
}

// isolate gives this thread a mount namespace with a file system in memory on
// dir.
func isolate(dir string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.Mount("bench", dir, "tmpfs", 0, "mode=0755,size=90%")
}

// needTools checks for the programs that no benchmark can do without.
func needTools() error {
	var missing []string
	for _, tool := range []string{
		"sh", "xargs", "cp", "mount", "umount", "nix", "nix-store", "nix-instantiate", "nix-build",
		"mkfs.ext4", "mkfs.xfs", "mkfs.btrfs",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if missing != nil {
		return fmt.Errorf("not found on PATH: %s\nhint: install nix, coreutils, findutils, util-linux, e2fsprogs, xfsprogs and btrfs-progs",
			strings.Join(missing, ", "))
	}
	return nil
}

// nixConf has what clan-core's tests set, and what Nix needs to run as root on
// a machine without build users.
const nixConf = `experimental-features = nix-command
build-users-group =
substituters =
fsync-metadata = false
`

func openLab(dir string) (*lab, error) {
	l := &lab{dir: dir, bin: filepath.Join(dir, "bin"), pause: time.Second}
	conf := filepath.Join(dir, "etc")
	for _, d := range []string{l.bin, conf, l.path("images")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(conf, "nix.conf"), []byte(nixConf), 0o644); err != nil {
		return nil, err
	}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "NIX_") && !strings.HasPrefix(name, "XDG_") && name != "PATH" && name != labEnv {
			l.env = append(l.env, v)
		}
	}
	l.env = append(l.env, "NIX_CONF_DIR="+conf, "PATH="+l.bin+":"+os.Getenv("PATH"), "LC_ALL=C")
	return l, nil
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// addTools copies our programs from dir, and this one.
func (l *lab) addTools(dir string, names ...string) error {
	files := map[string]string{"bench": "/proc/self/exe"}
	for _, name := range names {
		files[name] = filepath.Join(dir, name)
	}
	for name, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%w\nhint: run 'make build', or give --bin", err)
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(l.bin, name), data, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// close removes the lab. Without it, an empty directory would remain.
func (l *lab) close() error {
	if err := unix.Unmount(l.dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", l.dir, err)
	}
	return os.Remove(l.dir)
}

// shell is a command line, which ends with ctx together with all it started.
func (l *lab) shell(ctx context.Context, script string, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-euc", script)
	cmd.Env = append(l.env[:len(l.env):len(l.env)], env...)
	cmd.Dir = l.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// output runs a command line and returns what it printed. An error has what it
// complained of.
func (l *lab) output(ctx context.Context, script string, env ...string) (string, error) {
	return output(l.shell(ctx, script, env...))
}

func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, lastLines(stderr.String(), 20))
	}
	return stdout.String(), nil
}

// lastLines are the last n lines of text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
