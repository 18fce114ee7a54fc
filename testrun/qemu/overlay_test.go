package qemu

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOverlay has QEMU's own tools judge the images.
func TestOverlay(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	for _, size := range []string{"0", "512", "1M", "512M", "1025M", "4T"} {
		dir := t.TempDir()
		backing, file := filepath.Join(dir, "backing, with a comma"), filepath.Join(dir, "overlay")
		run("qemu-img", "create", "-q", "-f", "qcow2", backing, size)
		if size == "1M" {
			run("qemu-io", "-c", "write -P 7 0 128k", backing)
		}
		if err := writeOverlay(backing, file); err != nil {
			t.Fatal(err)
		}
		run("qemu-img", "check", "-q", file)
		var overlay, below struct {
			Size    int64  `json:"virtual-size"`
			Backing string `json:"full-backing-filename"`
			Format  string `json:"backing-filename-format"`
		}
		for file, info := range map[string]any{file: &overlay, backing: &below} {
			if err := json.Unmarshal([]byte(run("qemu-img", "info", "--output=json", file)), info); err != nil {
				t.Fatal(err)
			}
		}
		if overlay.Size != below.Size || overlay.Backing != backing || overlay.Format != "qcow2" {
			t.Errorf("%s: %+v over %+v", size, overlay, below)
		}
		run("qemu-img", "compare", file, backing)
		if size == "1M" {
			if out := run("qemu-io", "-c", "write -P 9 64k 4k", "-c", "read -P 9 64k 4k", "-c", "read -P 7 0 64k", "-c", "read -P 7 68k 60k", file); strings.Contains(out, "failed") {
				t.Error(out)
			}
			if out := run("qemu-io", "-r", "-c", "read -P 7 0 128k", backing); strings.Contains(out, "failed") {
				t.Error("what is below was written to: ", out)
			}
			run("qemu-img", "check", "-q", file)
		}
		if err := writeOverlay(backing, file); !os.IsExist(err) {
			t.Errorf("written twice: %v", err)
		}
	}
	dir := t.TempDir()
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, []byte("no image"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeOverlay(other, filepath.Join(dir, "new")); err == nil || !strings.Contains(err.Error(), "no qcow2 image") {
		t.Errorf("error %v", err)
	}
}
