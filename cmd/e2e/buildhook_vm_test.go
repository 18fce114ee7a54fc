package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestHookVM builds a test with a machine on a Nix that has neither KVM nor the
// features of tests, as make demo does.
func TestHookVM(t *testing.T) {
	need(t, manifestEnv)
	const attribute = "checks.x86_64-linux.vm-help"
	dir := tree(t)
	file := filepath.Join(dir, "examples/cli/tests/help.nix")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Another test each time, or it would be there already.
	changed := strings.Replace(string(text), "start_all()", fmt.Sprintf("start_all() # %d", time.Now().UnixNano()), 1)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	hookDir := filepath.Join(t.TempDir(), "hook")
	script := filepath.Join(t.TempDir(), "hook.sh")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\nexec %q --store %q --tcg=allow \"$@\"\n", tool(t, "nix-vm-build-hook"), hookDir), 0o755); err != nil {
		t.Fatal(err)
	}
	poor := []string{"--option", "system-features", "benchmark big-parallel"}
	out, err := build(t, dir, attribute, poor...)
	if err == nil || !strings.Contains(out, "features {kvm, nixos-test} is required to build") {
		t.Fatalf("it can be built without the hook: %v\n%s", err, out)
	}
	out, err = build(t, dir, attribute, append(poor, "--option", "build-hook", script)...)
	decisions, readErr := os.ReadFile(filepath.Join(hookDir, "log.jsonl"))
	if err != nil || readErr != nil {
		t.Fatalf("%v\n%s\n%v\n%s", err, out, readErr, decisions)
	}
	wantTexts(t, out, "all ways to ask for help agree")
	// From the start script of its machine.
	wantTexts(t, string(decisions), `"reason":"it needs the feature nixos-test","demand":{"machines":1,"memoryMiB":512,"cores":1}`, `"event":"built"`)
	said, err := command(t, dir, "nix", append([]string{"eval", "--raw", "path:" + dir + "#" + attribute + ".outPath"}, offline...)...)
	path := regexp.MustCompile(`/nix/store/\S+$`).FindString(said) // after warnings
	if err != nil || path == "" {
		t.Fatalf("%v\n%s", err, said)
	}
	info, err := command(t, ".", "nix", "path-info", "--json", path)
	if err != nil || !strings.Contains(info, `"ultimate":true`) {
		t.Errorf("%v\n%s", err, info)
	}
}
