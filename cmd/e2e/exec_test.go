package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestExec runs commands with a closure in the build sandbox of Nix, as a user
// without privileges, where paths of the store are mounts of their own; and, in
// the environment that is printed for it, with a store that has been imported.
func TestExec(t *testing.T) {
	out, err := command(t, ".", "nix-build", "testdata/exec.nix", "--no-out-link",
		"--arg", "tool", tool(t, "nix-closure-import"), "--argstr", "now", fmt.Sprint(time.Now().UnixNano()))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// Store paths by their names; what is built by whom is of no interest.
	out = regexp.MustCompile(`(/nix/store/)?[0-9a-z]{32}-`).ReplaceAllString(out, "")
	_, out, _ = strings.Cut(out, "\n--- options: \n")
	sections := strings.Split("options: \n"+out, "\n--- ")
	if len(sections) != 8 {
		t.Fatalf("%d sections:\n%s", len(sections), out)
	}
	const use = `
a-directory
a-file
a-file
a-directory
reading the Nix store...
checking path existence...
checking link hashes...
checking store hashes...
sha256:1cybv4dcqggyyw0zmkxsrwyiwvkd5rsdp028vl8jbpwhm815v7fn
built of a file`
	for _, section := range sections[:5] {
		if _, got, _ := strings.Cut(section, "\n"); "\n"+got != use {
			t.Errorf("%s\nwant %s", section, use)
		}
	}
	if want := "store /\n2\na-file\na-directory"; sections[5] != want {
		t.Errorf("%s\nwant %s", sections[5], want)
	}
	overlay := regexp.MustCompile(`^overlay\nnix-closure-import: mount an overlay: \d+ file systems are mounted below /nix/store, and an overlay shows none of them \(invalid argument\)\nhint: --method bind works there\nexit 3$`)
	if !overlay.MatchString(sections[6]) {
		t.Errorf("%s\nwant %s", sections[6], overlay)
	}
	if want := "left\nimage\n"; !strings.HasPrefix(sections[7], want) {
		t.Errorf("%s\nwant %s", sections[7], want)
	}
}
