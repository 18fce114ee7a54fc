package demand

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vm-prebuild/buildhook/admission"
)

const (
	hash   = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-"
	driver = hash + "nixos-test-driver-t"
)

// store makes a store of files, and of links where the text begins with "-> ".
func store(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(file), 0o755)
		if target, ok := strings.CutPrefix(text, "-> "); err == nil && ok {
			err = os.Symlink(target, file)
		} else if err == nil {
			err = os.WriteFile(file, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// script is a start script as nixpkgs makes one.
func script(m, smp string) string {
	return fmt.Sprintf(`#!/bin/sh
mkdir -m 755 "$TMPDIR/xchg"
# Start QEMU.
exec /nix/store/x/bin/qemu-kvm -cpu max \
    -name web \
    -m %s \
    -smp %s \
    -device virtio-rng-pci \
    $QEMU_OPTS \
    "$@"
`, m, smp)
}

func TestOf(t *testing.T) {
	many := func(n int, size int) map[string]string {
		files := map[string]string{}
		var names []string
		for i := range n {
			name := fmt.Sprintf("%svm-%d/bin/run-m%[2]d-vm", hash, i)
			names = append(names, name)
			files[name] = script("512", "1") + strings.Repeat(" ", size)
		}
		files[driver+"/bin/nixos-test-driver"] = strings.Join(names, "\n")
		return files
	}
	command := "mkdir -p $out\n" + driver + "/bin/nixos-test-driver -o $out\n"
	for name, tt := range map[string]struct {
		files map[string]string
		want  admission.Demand
		fails string
	}{
		"nixpkgs 24.05": {files: map[string]string{
			driver + "/bin/nixos-test-driver":          "#!/bin/sh\nexport startScripts='" + hash + "nixos-vm/bin/run-web-vm " + hash + "other/bin/run-db-vm'\nexec x \"$@\"\n",
			hash + "nixos-vm/bin/run-web-vm":           "-> " + hash + "run-nixos-vm",
			hash + "run-nixos-vm":                      script("2048", "2"),
			hash + "other/bin/run-db-vm":               "-> ../lib/run",
			hash + "other/lib/run":                     script("3G", "cpus=4,sockets=1"),
			hash + "not-of-this-test/bin/run-other-vm": script("99999", "9"),
		}, want: admission.Demand{Machines: 2, MemoryMiB: 2048 + 3072, Cores: 6}},
		"a configuration file": {files: map[string]string{
			driver + "/bin/nixos-test-driver":  "#!/bin/sh\nexec x --config " + hash + "driver-configuration.json \"$@\"\n",
			hash + "driver-configuration.json": `{"vms":{"web":{"start_script":"` + hash + `vm-web/bin/run-web-vm"}}}`,
			hash + "vm-web/bin/run-web-vm":     script("512", "1"),
		}, want: admission.Demand{Machines: 1, MemoryMiB: 512, Cores: 1}},
		"nothing said": {files: map[string]string{
			driver + "/bin/nixos-test-driver": hash + "vm-web/bin/run-web-vm",
			hash + "vm-web/bin/run-web-vm":    "exec qemu\n",
		}, want: Unknown},
		"no driver":  {files: map[string]string{"/nix/store/x": ""}, want: Unknown, fails: "no such file"},
		"no machine": {files: map[string]string{driver + "/bin/nixos-test-driver": "x"}, want: Unknown, fails: "names no start script"},
		"too much": {files: map[string]string{
			driver + "/bin/nixos-test-driver": hash + "vm-web/bin/run-web-vm",
			hash + "vm-web/bin/run-web-vm":    script("99999999999999999999", "1"),
		}, want: Unknown, fails: "-m 99999999999999999999: 99999999999999999999 is not between"},
		"a link out of the store": {files: map[string]string{
			driver + "/bin/nixos-test-driver": "-> /etc/passwd",
		}, want: Unknown, fails: "out of the store"},
		"a link out of the store, relative": {files: map[string]string{
			driver + "/bin": "-> ../../../etc", "/nix/store/x": "", "/etc/nixos-test-driver": "",
		}, want: Unknown, fails: "out of the store"},
		"many machines":     {files: many(maxFiles-1, 0), want: admission.Demand{Machines: maxFiles - 1, MemoryMiB: 512 * (maxFiles - 1), Cores: maxFiles - 1}},
		"too many files":    {files: many(maxFiles, 0), want: Unknown, fails: "more than 64 files"},
		"too many machines": {files: many(maxFiles+1, 0), want: Unknown, fails: "more than 64 paths"},
		"too many bytes":    {files: many(5, maxFile-1000), want: Unknown, fails: "more than 16777216 bytes"},
		"links in a circle": {files: map[string]string{
			driver + "/bin/nixos-test-driver": "-> nixos-test-driver",
		}, want: Unknown, fails: "too many levels"},
		"a directory": {files: map[string]string{
			driver + "/bin/nixos-test-driver/x": "",
		}, want: Unknown, fails: "not a file"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Of(t.Context(), store(t, tt.files), []string{"/bin/sh", command})
			if got != tt.want || (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%+v, %v; want %+v, %q", got, err, tt.want, tt.fails)
			}
		})
	}
}

// TestMachine: an option counts as QEMU reads it, and what is not understood is said.
func TestMachine(t *testing.T) {
	for options, want := range map[string]struct {
		memoryMiB, cores int
		fails            string
	}{
		"":                                  {1024, 1, ""},
		"-m 512 -m 2G -smp 1 -smp 3":        {2048, 3, ""},
		"-m 1048576K":                       {1024, 1, ""},
		"-m 1k":                             {1, 1, ""},
		"-m 3m":                             {3, 1, ""},
		"-m 1T":                             {1 << 20, 1, ""},
		"-m size=2G,slots=2,maxmem=8G":      {2048, 1, ""},
		"-m 1.5G":                           {fails: "-m 1.5G: not a size"},
		"-m $memory":                        {fails: "-m $memory: not a size"},
		"-m 9P":                             {fails: "-m 9P: not a size"},
		"-m 9999999T":                       {fails: "is not between"},
		"-smp 4,maxcpus=8":                  {1024, 4, ""},
		"-smp cores=2,cpus=4":               {1024, 4, ""},
		"-smp sockets=2,cores=3,threads=2":  {1024, 12, ""},
		"-smp sockets=2,dies=2":             {1024, 4, ""},
		"-smp maxcpus=8,sockets=2":          {1024, 8, ""},
		"-smp $(nproc)":                     {fails: "is not between"},
		"-smp cores=65536,threads=65536":    {fails: "more than 65536"},
		"-smp 2,petals=5":                   {fails: "not a number of processors"},
		"-device x -machine q35,mem=9 -M x": {1024, 1, ""},
	} {
		memoryMiB, cores, err := machine("mkdir -m 755 x\nexec qemu " + options + " $QEMU_OPTS\n")
		if memoryMiB != want.memoryMiB || cores != want.cores || (err == nil) != (want.fails == "") || err != nil && !strings.Contains(err.Error(), want.fails) {
			t.Errorf("%q: %d MiB, %d cores, %v; want %+v", options, memoryMiB, cores, err, want)
		}
	}
}

// TestEnds: nobody reads for a Nix that has ended.
func TestEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	root := store(t, map[string]string{driver + "/bin/nixos-test-driver": ""})
	if got, err := Of(ctx, root, []string{driver}); got != Unknown || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", got, err)
	}
}

// FuzzMachine: whatever a start script says, the numbers are ones to add up.
func FuzzMachine(f *testing.F) {
	f.Add(script("1024", "1"))
	f.Add("exec -m 4G -smp cpus=4")
	f.Fuzz(func(t *testing.T, text string) {
		m, c, err := machine(text)
		if err == nil && (m < 1 || m > maxMemoryMiB || c < 1 || c > maxCores) {
			t.Errorf("%d MiB, %d cores", m, c)
		}
	})
}
