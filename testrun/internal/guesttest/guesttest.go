// Package guesttest gives tests the guests of prebuilt tests: [StartScript] as
// they are, [Savable] so that they can be saved.
package guesttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"vm-prebuild/testrun/suite"
)

// manifestEnv names the manifest of the prebuilt example tests. "make e2e" sets it.
const manifestEnv = "VM_PREBUILD_MANIFEST"

// Guest is a machine of a prebuilt test.
type Guest struct{ Test, Machine string }

// Guests are the kinds of guests that nix/offline makes. Each is on VLAN 1.
var Guests = map[string]Guest{
	"mini":    {"vm-help", "machine"},
	"systemd": {"vm-two-machines", "server"},
}

// StartScript returns the start script of a guest. The test is skipped where there
// are no prebuilt tests.
func StartScript(t testing.TB, guest Guest) string {
	t.Helper()
	file := os.Getenv(manifestEnv)
	if file == "" {
		t.Skipf("%s is not set; make e2e does", manifestEnv)
	}
	m, err := suite.ReadManifest(file)
	if err != nil {
		t.Fatal(err)
	}
	wrapper, err := os.ReadFile(m.Tests[guest.Test].Driver)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(string(regexp.MustCompile(`/nix/store/[^ '"]*\.json`).Find(wrapper)))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		VMs map[string]struct {
			StartScript string `json:"start_script"`
		} `json:"vms"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	script := config.VMs[guest.Machine].StartScript
	if script == "" {
		t.Fatalf("test %s has no machine %s", guest.Test, guest.Machine)
	}
	return script
}

var (
	initrdOption = regexp.MustCompile(`-initrd (\S+)`)
	initOption   = regexp.MustCompile(`init=(/nix/store/[^ /]+)/init`)
	storeShare   = regexp.MustCompile(`-virtfs \S*mount_tag=nix-store`)
	storeMount   = regexp.MustCompile(`(?m)^\s*share nix-store .*$`)
)

// Savable makes, in dir, a start script of a guest like that of StartScript whose
// /nix/store is a disk with the closure of its configuration. A share of the host's
// store stays mounted as long as the guest runs, which keeps QEMU from saving it.
// All else is the same: kernel, init system, disk, and the other shares.
func Savable(t testing.TB, guest Guest, dir string) string {
	t.Helper()
	script, err := os.ReadFile(StartScript(t, guest))
	if err != nil {
		t.Fatal(err)
	}
	text := string(script)
	initrd, system := initrdOption.FindStringSubmatch(text), initOption.FindStringSubmatch(text)
	if initrd == nil || system == nil || !storeShare.MatchString(text) {
		t.Fatalf("a start script of another kind than nix/offline's:\n%s", text)
	}
	image, newInitrd := filepath.Join(dir, "store.erofs"), filepath.Join(dir, "initrd")
	makeStoreImage(t, system[1], image)
	makeInitrd(t, initrd[1], newInitrd)
	text = initrdOption.ReplaceAllLiteralString(text, "-initrd "+newInitrd)
	text = storeShare.ReplaceAllLiteralString(text, fmt.Sprintf(
		"-drive if=none,id=store,format=raw,readonly=on,file=%s -device virtio-blk-pci,drive=store,serial=store", image))
	path := filepath.Join(dir, "run-"+guest.Machine+"-vm")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// output runs a program that must succeed.
func output(t testing.TB, dir, stdin, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, &stderr)
	}
	return out
}

func makeStoreImage(t testing.TB, system, image string) {
	t.Helper()
	tree := t.TempDir()
	for _, path := range strings.Fields(string(output(t, "", "", "nix-store", "--query", "--requisites", system))) {
		output(t, "", "", "cp", "-a", "--reflink=auto", path, tree+"/")
	}
	output(t, "", "", "mkfs.erofs", "--quiet", image, tree)
	output(t, "", "", "chmod", "-R", "u+w", tree) // so that it can be removed
}

// makeInitrd appends an archive to an initramfs, whose /init takes the place of
// the other: it mounts the disk instead of the share.
func makeInitrd(t testing.TB, initrd, path string) {
	t.Helper()
	tree := t.TempDir()
	old, err := os.ReadFile(initrd)
	if err != nil {
		t.Fatal(err)
	}
	output(t, tree, string(old), "cpio", "--extract", "--quiet", "init")
	stage1, err := os.ReadFile(filepath.Join(tree, "init"))
	if err != nil {
		t.Fatal(err)
	}
	if !storeMount.Match(stage1) {
		t.Fatalf("stage 1 does not mount the store as it did:\n%s", stage1)
	}
	stage1 = storeMount.ReplaceAllLiteral(stage1, []byte(`
if [ -e /modules/store ]; then load store; elif [ $kind = mini ]; then load systemd; fi
mkdir -p $root/nix/.ro-store
mount -t erofs -o ro "$(device store)" $root/nix/.ro-store
`))
	if err := os.WriteFile(filepath.Join(tree, "init"), stage1, 0o755); err != nil {
		t.Fatal(err)
	}
	more := output(t, tree, "init\n", "cpio", "--create", "--quiet", "--format=newc", "--owner=0:0")
	if err := os.WriteFile(path, append(old, more...), 0o644); err != nil {
		t.Fatal(err)
	}
}
