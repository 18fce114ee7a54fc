package e2e

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// TestHookModule evaluates the NixOS module, and gives the command line that it makes
// to the hook, which is content with it.
func TestHookModule(t *testing.T) {
	hook := tool(t, "nix-vm-build-hook")
	for version, byEnvironment := range map[string]bool{"2.24.11": false, "2.25.0": true, "2.33.1": true, "2.34.0": false} {
		t.Run(version, func(t *testing.T) {
			// The script is built, and read where it is.
			expression := "import " + absolute(t, "testdata/buildhook/module.nix") + " { root = " + absolute(t, top) + "; version = \"" + version + "\"; tool = \"" + hook + "\"; }"
			out, err := command(t, ".", "nix-build", "--no-out-link", "--expr", "with builtins; let c = "+expression+"; in (import "+absolute(t, "../../nix/offline")+" { }).writeText \"config.json\" (toJSON c)")
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			paths := strings.Fields(out)
			text, err := exec.Command("cat", paths[len(paths)-1]).Output()
			if err != nil {
				t.Fatal(err)
			}
			var c struct {
				Hook    string
				Nix     struct{ Settings map[string]string }
				Systemd struct {
					Services map[string]struct{ Environment map[string]string }
					Tmpfiles struct{ Rules []string }
				}
			}
			if err := json.Unmarshal(text, &c); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			want := ""
			if byEnvironment {
				want = "build-hook = " + c.Hook
			}
			if got := c.Systemd.Services["nix-daemon"].Environment["NIX_CONFIG"]; got != want || c.Nix.Settings["build-hook"] != c.Hook {
				t.Errorf("NIX_CONFIG is %q, want %q; nix.conf has %v", got, want, c.Nix.Settings)
			}
			if len(c.Systemd.Tmpfiles.Rules) != 1 || !strings.Contains(c.Systemd.Tmpfiles.Rules[0], "/var/lib/hook 0700 root root") {
				t.Errorf("%v", c.Systemd.Tmpfiles.Rules)
			}
			said, err := exec.Command(c.Hook, "3").CombinedOutput()
			if err == nil || !strings.Contains(string(said), "there is no pipe for the builder's log") {
				t.Errorf("%v\n%s", err, said)
			}
		})
	}
}
