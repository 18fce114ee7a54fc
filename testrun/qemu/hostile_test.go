package qemu_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/machine"
)

// The disk of a state may say that it continues another file of the host's: it is
// looked at before QEMU runs, which would let the guest read that.
func TestRestoreHostileDisk(t *testing.T) {
	dir := t.TempDir()
	base, secret := filepath.Join(dir, "base.raw"), filepath.Join(dir, "secret")
	for _, file := range []string{base, secret} {
		if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := newMachine(t, "# qemu-img create -b "+base+`; qemu-system-x86_64
touch ran; exit 1`, time.Minute)
	image := func(name string, args ...string) string {
		file := filepath.Join(dir, name)
		args = append([]string{"create", "-q", "-f", "qcow2"}, append(args, file, "1M")...)
		if out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return file
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cut := image("cut", "-F", "raw", "-b", secret)
	if err := os.Truncate(cut, 140); err != nil {
		t.Fatal(err)
	}
	ran := func() bool {
		_, err := os.Stat(filepath.Join(m.Dirs().State, "ran"))
		return err == nil
	}
	for name, test := range map[string]struct{ file, base, want string }{
		"data elsewhere":            {image("data", "-o", "data_file="+filepath.Join(dir, "data.raw")), "", "data has its data in another file"},
		"data in a file that it is": {image("raw", "-o", "data_file_raw=on,data_file="+filepath.Join(dir, "data2.raw")), "", "raw has its data in another file"},
		"another base":              {image("other", "-F", "raw", "-b", secret), base, "is laid over \"" + secret + "\", not \"" + base},
		"another base, admitted":    {image("admitted", "-F", "raw", "-b", secret), secret, "is laid over " + secret + ", which is no file of the Nix store's, and none that the start script names"},
		"a relative base":           {image("relative", "-F", "raw", "-b", "secret"), "secret", "is laid over "},
		"a directory of FAT":        {image("fat", "-u", "-F", "raw", "-b", "fat:/etc"), "fat:/etc", "is laid over "},
		"a device":                  {image("device", "-u", "-F", "raw", "-b", "/dev/zero"), "/dev/zero", "is laid over /dev/zero, which"},
		"no base now":               {image("none"), base, "is laid over \"\""},
		"a damaged header":          {cut, secret, "cut has a damaged header"},
		"a FIFO":                    {fifo, "", "fifo is not a file"},
		"no image":                  {secret, "", "secret is no qcow2 image"},
	} {
		t.Run(name, func(t *testing.T) {
			err := restoreDisk(t, m, test.file, test.base)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
			if ran() {
				t.Fatal("the start script has been executed")
			}
		})
	}
	// What the start script names is no reason not to execute it.
	if err := restoreDisk(t, m, image("good", "-F", "raw", "-b", base), base); err == nil || !ran() {
		t.Errorf("the script was not executed: %v", err)
	}
}

// restoreDisk restores a machine with a disk that its state says is laid over base.
func restoreDisk(t *testing.T, m machine.Restorer, disk, base string) error {
	t.Helper()
	hardware, err := json.Marshal(map[string]any{"disk": true, "diskBase": base, "memoryBytes": 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := machine.StateFiles{RAM: filepath.Join(dir, "ram"), Disk: disk, Devices: filepath.Join(dir, "devices")}
	return m.Restore(t.Context(), machine.StartOptions{}, files, hardware, nil)
}
