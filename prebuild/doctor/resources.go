package doctor

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// qemuName is the emulator for guests of this machine's kind.
var qemuName = "qemu-system-" + map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]

func qemu(ctx context.Context, m *Machine) Result {
	switch path, version := m.QEMU(ctx); {
	case path == "":
		return warning("nix shell nixpkgs#qemu, or apt install qemu-system",
			"there is no %s in PATH; tests bring their own, but start scripts run by hand do not", qemuName)
	case version == "":
		return warning(qemuName+" --version # says why", "%s does not run", path)
	default:
		return ok("QEMU %s is %s", version, path)
	}
}

var qemuVersion = regexp.MustCompile(`^QEMU emulator version (\S+)`)

// findQEMU is [Machine.QEMU] of this machine.
func findQEMU(ctx context.Context) (path, version string) {
	path, err := exec.LookPath(qemuName)
	if err != nil {
		return "", ""
	}
	cmd := exec.CommandContext(ctx, path, "--version")
	runtime.LockOSThread() // which the death signal is bound to
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if match := qemuVersion.FindSubmatch(out); err == nil && match != nil {
		version = string(match[1])
	}
	return path, version
}

func cores(_ context.Context, m *Machine) Result {
	if n := m.Cores(); n > 1 {
		return ok("%d processors", n)
	}
	return warning("give this machine a second processor", "with one processor, the machines of a test wait for each other")
}

// What a machine of a test has if it says nothing else, and what is room for
// some tests at once.
const (
	oneMachineMiB = 1024
	someTestsMiB  = 4096
)

func memory(_ context.Context, m *Machine) Result {
	mib, err := m.MemoryMiB()
	remedy := fmt.Sprintf("give this machine %d MiB, or end what uses its memory", someTestsMiB)
	switch {
	case err != nil:
		return warning("mount -t proc proc /proc", "it is not known how much memory there is: %v", err)
	case mib < oneMachineMiB:
		return missing(remedy, "%d MiB of memory are available, and a machine has %d MiB if its test says nothing else", mib, oneMachineMiB)
	case mib < someTestsMiB:
		return warning(remedy, "%d MiB of memory are available, which is little for tests with several machines", mib)
	}
	return ok("%d MiB of memory are available", mib)
}

// Volume is the file system of a directory.
type Volume struct {
	FreeMiB int64
	InTmpfs bool // it is memory
}

// volume is [Machine.Volume] of this machine.
func volume(dir string) (Volume, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return Volume{}, err
	}
	return Volume{int64(s.Bavail) * s.Bsize >> 20, s.Type == unix.TMPFS_MAGIC}, nil
}

func storeSpace(_ context.Context, m *Machine) Result {
	v, err := m.Volume(m.StoreDir)
	if err != nil {
		return Result{} // there is no store
	}
	const remedy = "nix-collect-garbage --delete-old"
	switch {
	case v.FreeMiB < 1<<10:
		return missing(remedy, "%s has %d MiB left, and the closure of a test takes more", m.StoreDir, v.FreeMiB)
	case v.FreeMiB < 10<<10:
		return warning(remedy, "%s has %d MiB left, and the closures of some tests take more", m.StoreDir, v.FreeMiB)
	}
	return ok("%s has %d GiB left", m.StoreDir, v.FreeMiB>>10)
}

func tmpSpace(_ context.Context, m *Machine) Result {
	const elsewhere = "export TMPDIR=/var/tmp"
	v, err := m.Volume(m.TmpDir)
	remedy := "remove files from " + m.TmpDir
	if other, otherErr := m.Volume("/var/tmp"); otherErr == nil && other.FreeMiB > v.FreeMiB {
		remedy = elsewhere
	}
	switch {
	case err != nil:
		return missing(elsewhere, "%s, for temporary files, cannot be used: %v", m.TmpDir, err)
	case v.FreeMiB < 512:
		return missing(remedy, "%s has %d MiB left, which is no room for the disk of a machine", m.TmpDir, v.FreeMiB)
	case v.FreeMiB < 4<<10:
		return warning(remedy, "%s has %d MiB left, for the disks of all machines", m.TmpDir, v.FreeMiB)
	case v.InTmpfs:
		return ok("%s has %d GiB left, which are memory", m.TmpDir, v.FreeMiB>>10)
	}
	return ok("%s has %d GiB left", m.TmpDir, v.FreeMiB>>10)
}

func storeReflink(_ context.Context, m *Machine) Result { return m.reflinkIn(m.StoreDir) }
func tmpReflink(_ context.Context, m *Machine) Result   { return m.reflinkIn(m.TmpDir) }

func (m *Machine) reflinkIn(dir string) Result {
	able, fs, err := m.Reflink(dir)
	switch {
	case err != nil:
		return Result{} // there is no such directory
	case able:
		return ok("files in %s can share their data: imports copy nothing", dir)
	}
	return warning("put "+dir+" on btrfs, xfs or bcachefs; or use nix-closure-import exec, which copies nothing anywhere",
		"files in %s cannot share their data, for it is on %s: imports copy", dir, fs)
}

// fileSystems are names of file systems by their numbers in linux/magic.h, of
// those that a store may be on.
var fileSystems = map[int64]string{
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.F2FS_SUPER_MAGIC:      "f2fs",
	unix.NFS_SUPER_MAGIC:       "nfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	unix.TMPFS_MAGIC:           "tmpfs",
	unix.XFS_SUPER_MAGIC:       "xfs",
	0x2fc12fc1:                 "zfs",
	0xca451a4e:                 "bcachefs",
}

// reflink is [Machine.Reflink] of this machine: it tries with files that have no
// name, or asks what file system it is where none can be made.
func reflink(dir string) (able bool, fs string, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return false, "", err
	}
	fs, known := fileSystems[int64(uint32(s.Type))] //nolint:unconvert // the type differs between architectures
	if !known {
		fs = fmt.Sprintf("a file system with the number %#x", s.Type)
	}
	able, tried := tryReflink(dir)
	if !tried {
		able = fs == "btrfs" || fs == "bcachefs" // xfs and zfs can be told not to
	}
	return able, fs, nil
}

func tryReflink(dir string) (able, tried bool) {
	var files [2]*os.File
	for i := range files {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return false, false
		}
		files[i] = os.NewFile(uintptr(fd), dir)
		defer files[i].Close()
	}
	if _, err := files[0].WriteString(strings.Repeat("x", 64<<10)); err != nil {
		return false, false
	}
	return unix.IoctlFileClone(int(files[1].Fd()), int(files[0].Fd())) == nil, true
}
