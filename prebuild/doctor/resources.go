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

func qemu(ctx context.Context, m *machine) Result {
	switch path, version := m.qemu(ctx); {
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

// findQEMU is [machine.qEMU] of this machine.
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

func cores(_ context.Context, m *machine) Result {
	if n := m.cores(); n > 1 {
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

func memory(_ context.Context, m *machine) Result {
	mib, err := m.memoryMiB()
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

// volumeInfo is the file system of a directory.
type volumeInfo struct {
	freeMiB int64
	inTmpfs bool // it is memory
}

// volume is [machine.volume] of this machine.
func volume(dir string) (volumeInfo, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return volumeInfo{}, err
	}
	return volumeInfo{int64(s.Bavail) * s.Bsize >> 20, s.Type == unix.TMPFS_MAGIC}, nil
}

func storeSpace(_ context.Context, m *machine) Result {
	v, err := m.volume(m.storeDir)
	if err != nil {
		return Result{} // there is no store
	}
	const remedy = "nix-collect-garbage --delete-old"
	switch {
	case v.freeMiB < 1<<10:
		return missing(remedy, "%s has %d MiB left, and the closure of a test takes more", m.storeDir, v.freeMiB)
	case v.freeMiB < 10<<10:
		return warning(remedy, "%s has %d MiB left, and the closures of some tests take more", m.storeDir, v.freeMiB)
	}
	return ok("%s has %d GiB left", m.storeDir, v.freeMiB>>10)
}

func tmpSpace(_ context.Context, m *machine) Result {
	const elsewhere = "export TMPDIR=/var/tmp"
	v, err := m.volume(m.tmpDir)
	remedy := "remove files from " + m.tmpDir
	if other, otherErr := m.volume("/var/tmp"); otherErr == nil && other.freeMiB > v.freeMiB {
		remedy = elsewhere
	}
	switch {
	case err != nil:
		return missing(elsewhere, "%s, for temporary files, cannot be used: %v", m.tmpDir, err)
	case v.freeMiB < 512:
		return missing(remedy, "%s has %d MiB left, which is no room for the disk of a machine", m.tmpDir, v.freeMiB)
	case v.freeMiB < 4<<10:
		return warning(remedy, "%s has %d MiB left, for the disks of all machines", m.tmpDir, v.freeMiB)
	case v.inTmpfs:
		return ok("%s has %d GiB left, which are memory", m.tmpDir, v.freeMiB>>10)
	}
	return ok("%s has %d GiB left", m.tmpDir, v.freeMiB>>10)
}

func storeReflink(_ context.Context, m *machine) Result { return m.reflinkIn(m.storeDir) }
func tmpReflink(_ context.Context, m *machine) Result   { return m.reflinkIn(m.tmpDir) }

func (m *machine) reflinkIn(dir string) Result {
	able, fs, err := m.reflink(dir)
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

// reflink is [machine.reflink] of this machine: it tries with files that have no
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
