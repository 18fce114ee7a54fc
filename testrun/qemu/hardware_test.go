package qemu

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/startcommand"
)

// The command lines of a run that saves and of one that restores are the same but
// for names of files.
func TestNormalise(t *testing.T) {
	saving := run{state: startcommand.State{RAM: "/cache/.draft/ram", MemoryBytes: 5, Disk: "/cache/.draft/disk.qcow2"}}
	restoring := run{state: startcommand.State{RAM: "/cache/x/ram", MemoryBytes: 5, Reads: true, Incoming: true, Disk: "/run/vm-state-a/a.qcow2"}}
	line := func(r run, state, vlan string) []string {
		return []string{"/bin/qemu", "-m", "5", "-object", r.state.RAMArgument(), "-drive", "file=" + r.state.Disk + ",if=none",
			"-chardev", "socket,id=qmp,path=" + state + "/qmp", "-netdev", "vde,sock=" + vlan, "-virtfs", "local,path=/run/shared,x"}
	}
	want := []string{"/bin/qemu", "-m", "5", "-object", "@ram@", "-drive", "file=@disk@,if=none",
		"-chardev", "socket,id=qmp,path=@state@/qmp", "-netdev", "vde,sock=@QEMU_VDE_SOCKET_1@", "-virtfs", "local,path=@shared@,x"}
	for _, test := range []struct {
		run         run
		more        []string
		state, vlan string
	}{
		{saving, []string{"-no-reboot"}, "/tmp/vm-state-a", "/tmp/vde1.ctl"},
		{restoring, []string{"-incoming", "defer"}, "/run/vm-state-a", "/run/vde1.ctl"},
	} {
		got := test.run.normalise(append(line(test.run, test.state, test.vlan), test.more...),
			machine.Dirs{State: test.state, Shared: "/run/shared"}, []string{"QEMU_VDE_SOCKET_1=" + test.vlan, "QEMU_VDE_SOCKET_2="})
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestFits(t *testing.T) {
	saved := hardware{QEMU: "7.2.22 x", Binary: fileIdentity{Path: "/q", Size: 1}, MemoryBytes: 1 << 30, TicksPerSecond: 2300e6,
		Arguments: []string{"q", "-m", "1024", "-smp", "1"}, Files: []fileIdentity{{Path: "/k", Size: 3, MTime: 4}}, Console: []string{"x"}}
	if err := saved.fits(saved); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(h *hardware){
		"":                           func(h *hardware) { h.Console, h.TicksPerSecond = nil, 2300_900e3 },
		"another QEMU":               func(h *hardware) { h.QEMU = "7.2.23 x" },
		"another QEMU: 7.2.22 x, /q": func(h *hardware) { h.Binary.Size = 2 },
		"another accelerator":        func(h *hardware) { h.KVM = true },
		"runs at 2300 MHz, and this one's at 2310": func(h *hardware) { h.TicksPerSecond = 2310e6 },
		"runs at 2300 MHz, and this one's at 0":    func(h *hardware) { h.TicksPerSecond = 0 },
		"1073741824 bytes of memory":               func(h *hardware) { h.MemoryBytes = 1 << 29 },
		"-m 1024 then, -m 512 now":                 func(h *hardware) { h.Arguments = []string{"q", "-m", "512", "-smp", "1"} },
		"nothing then, 1 -S now":                   func(h *hardware) { h.Arguments = append(slices.Clone(h.Arguments), "-S") },
		"changed since it was saved: /k":           func(h *hardware) { h.Files = []fileIdentity{{Path: "/k", Size: 3, MTime: 5}} },
		"changed since it was saved: there are fe": func(h *hardware) { h.Files = nil },
	} {
		now := saved
		change(&now)
		err := cmp.Or(now.fits(saved), now.sameFiles(saved))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestObstacles(t *testing.T) {
	for want, args := range map[string]string{
		"":                           "q -m 1 -append fat:x -virtfs local,path=/run/shared,mount_tag=shared -object rng-random,id=r -object memory-backend-file,id=vm-prebuild-ram,size=1",
		"its /nix/store is a share":  "q -fsdev local,id=x,path=/nix/store",
		"vhost-user-fs-pci keeps":    "q -device vhost-user-fs-pci,chardev=c",
		"says where its memory is":   "q --object memory-backend-memfd,id=mem,size=1G",
		"divides its memory (-numa)": "q -numa node,memdev=mem",
		"disk (fat:)":                "q -drive if=virtio,file=fat:rw:/etc",
		"as a disk (fat:)":           "q -hdb fat:floppy:dir",
		"host's as a disk (fat:)":    "q -blockdev driver=vvfat,dir=/etc,node-name=n",
		"of the host's as a disk (f": `q -blockdev {"driver":"vvfat","dir":"/etc"}`,
	} {
		all := strings.Fields(args)
		err := hardware{obstacles: slices.Concat(statesOfOthers(all), memoryObstacles(all), fatObstacles(all))}.check()
		var unsavable *machine.UnsavableError
		if errors.As(err, &unsavable) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

// Words that can name files are looked at, however QEMU's options spell them.
func TestPathsIn(t *testing.T) {
	for args, want := range map[string]string{
		"q|-kernel|/k":                               "/k",
		"q|-kernel|bzImage":                          "/cwd/bzImage",
		"q|-drive|file=/a,x=y,/b":                    "/a /b",
		"q|-drive|file=./secret,if=none":             "/cwd/secret",
		"q|-hda|file:disk.img":                       "/cwd/disk.img",
		"q|-drive|file.filename=../up":               "/up",
		"q|-fw_cfg|name=opt/x,file=a,,b":             "/cwd/a,b",
		"q|-kernel|/with,comma":                      "/with,comma",
		"q|-virtfs|local,path=dir":                   "/cwd/dir",
		`q|-blockdev|{"file":{"filename":"deep"}}`:   "/cwd/deep",
		`q|-drive|file=json:{"filename":"j",,"a":1}`: "/cwd/j",
	} {
		got := pathsIn(strings.Split(args, "|"), "/cwd")
		for path := range strings.FieldsSeq(want) {
			if !slices.Contains(got, path) {
				t.Errorf("%s: %q lacks %s", args, got, path)
			}
		}
	}
	// What the guest reads, and what QEMU writes, is none of it.
	args := []string{"q", "-append", "/k", "-serial", "file:/log", "-chardev", "file,id=x,path=/log", "-D", "/log"}
	if got := pathsIn(args, "/cwd"); slices.Contains(got, "/k") || slices.Contains(got, "/log") {
		t.Errorf("%q", got)
	}
}

// Reading gigabytes ends with the test, and opening what is no file does not wait.
func TestIdentifyContent(t *testing.T) {
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(file, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	want := fileIdentity{Path: "x", Size: 3, SHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
	if got, err := identifyContent(ctx, file, "x"); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := identifyContent(ctx, fifo, "x"); err == nil || !strings.Contains(err.Error(), "fifo is not a file") {
		t.Errorf("error %v", err)
	}
	ended := errors.New("the test has ended")
	cancel(ended)
	if _, err := identifyContent(ctx, file, "x"); !errors.Is(err, ended) {
		t.Errorf("error %v", err)
	}
}

// storeFile puts a file into the Nix store.
func storeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "nix-store", "--add", file).Output()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return strings.TrimSpace(string(out))
}

// A file is what its name leads to: in the store all are from 1970, and many have the
// same size.
func TestIdentifyFiles(t *testing.T) {
	one, two := storeFile(t, "one"), storeFile(t, "two")
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	p := &process{cfg: Config{Dirs: machine.Dirs{State: state}}}
	outer, inner, plain := filepath.Join(dir, "link"), filepath.Join(state, "link"), filepath.Join(dir, "plain")
	identities := func() []fileIdentity {
		t.Helper()
		files, err := p.identifyFiles(t.Context(), []string{plain, one, outer, inner, filepath.Join(dir, "none"), dir})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	write := func() {
		t.Helper()
		if err := os.WriteFile(plain, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(plain, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	write()
	for _, link := range []string{outer, inner} {
		if err := os.Symlink(one, link); err != nil {
			t.Fatal(err)
		}
	}
	before := hardware{Files: identities()}
	if len(before.Files) != 2 || before.Files[0] != (fileIdentity{Path: one}) || before.Files[1].Path != plain || before.Files[1].Inode == 0 {
		t.Errorf("%+v", before.Files)
	}
	if err := (hardware{Files: identities()}).sameFiles(before); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func() error{
		"a link to another file of the store's": func() error { return errors.Join(os.Remove(outer), os.Symlink(two, outer)) },
		"a link in the state directory":         func() error { return errors.Join(os.Remove(inner), os.Symlink(two, inner)) },
		"a file with the old size and mtime":    func() error { time.Sleep(20 * time.Millisecond); write(); return nil },
	} {
		before := hardware{Files: identities()}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if err := (hardware{Files: identities()}).sameFiles(before); err == nil {
			t.Errorf("%s is not seen: %+v", what, before.Files)
		}
	}
}
