package suite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const goodManifest = `{
  "version": 1, "system": "x86_64-linux", "comment": "of a later version",
  "closureInfo": "/nix/store/c8nhpigx0wjhcxd4xxppvq2ij57m0ibr-closure-info",
  "tests": {
    "vm-two": {
      "driver": "/nix/store/l9db7x6r1xj3fnjif4damifc0n1k3v44-d/bin/nixos-test-driver",
      "derivation": "/nix/store/wz5zp739d5r4g8ndsbiyk61jvpbn12sw-vm-test-run-two.drv",
      "machines": [{"name": "a", "memoryMiB": 512, "cores": 1}, {"name": "b", "memoryMiB": 1024, "cores": 2}],
      "vlans": [1], "globalTimeoutSeconds": 3600
    }
  }
}`

func TestReadManifest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "manifest.json")
	if err := os.WriteFile(path, []byte(goodManifest), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := ReadManifest(path)
	if err != nil {
		t.Fatal(err)
	}
	want := &Manifest{
		Version: 1, System: "x86_64-linux",
		ClosureInfo: "/nix/store/c8nhpigx0wjhcxd4xxppvq2ij57m0ibr-closure-info",
		Tests: map[string]Test{"vm-two": {
			Driver:               "/nix/store/l9db7x6r1xj3fnjif4damifc0n1k3v44-d/bin/nixos-test-driver",
			Derivation:           "/nix/store/wz5zp739d5r4g8ndsbiyk61jvpbn12sw-vm-test-run-two.drv",
			Machines:             []Machine{{"a", 512, 1}, {"b", 1024, 2}},
			VLANs:                []int{1},
			GlobalTimeoutSeconds: 3600,
		}},
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	if mem, cores := m.Tests["vm-two"].MemoryMiB(), m.Tests["vm-two"].Cores(); mem != 1536 || cores != 3 {
		t.Errorf("%d MiB, %d cores", mem, cores)
	}
}

func TestReadManifestErrors(t *testing.T) {
	for _, tt := range []struct{ name, old, new, want string }{
		{"syntax", `"closureInfo":`, `"closureInfo"`, `line 3: invalid character '"' after object key`},
		{"cut off", goodManifest[100:], "", "line 3: unexpected end of JSON input"},
		{"array", goodManifest, "[]", `line 1: "" cannot be a array`},
		{"no version", `"version": 1,`, "", "has no version"},
		{"version", `"version": 1,`, `"version": 2, "tests": [],`, "has version 2, this tool reads version 1"},
		{"type", `"vlans": [1]`, `"vlans": ["1"]`, `line 9: "tests.vlans" cannot be a string`},
		{"system", `"x86_64-linux"`, `""`, "has no system"},
		{"closure", `/nix/store/c8`, `result/c8`, "is not an absolute path"},
		{"name", `"vm-two"`, `"../vm-two"`, `test name "../vm-two": only letters`},
		{"driver", `"/nix/store/l9`, `"/nix/../store/l9`, `test "vm-two": driver "/nix/../store`},
		{"derivation", `two.drv`, `two`, `is not the path of a .drv file`},
		{"time-out", `3600`, `0`, `globalTimeoutSeconds is 0, must be positive`},
		{"memory", `512`, `-1`, `machine "a": memoryMiB is -1`},
		{"cores", `"cores": 2`, `"cores": 0`, `machine "b": cores is 0`},
		{"VLAN", `[1]`, `[-1]`, "VLAN -1 is negative"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "manifest.json")
			text := strings.Replace(goodManifest, tt.old, tt.new, 1)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := ReadManifest(path)
			var manifestErr *ManifestError
			if !errors.As(err, &manifestErr) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "manifest "+path+": ") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	_, err := ReadManifest("/nonexistent/manifest.json")
	if want := "manifest /nonexistent/manifest.json: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(goodManifest))
	f.Add([]byte(`{"version":1,"system":"x","closureInfo":"/c","tests":{"..":{}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		for name, test := range m.Tests {
			if filepath.Base(name) != name || name == "." || name == ".." {
				t.Errorf("accepted name %q", name)
			}
			if !filepath.IsAbs(test.Driver) || test.Cores() < 1 || test.MemoryMiB() < 0 || test.GlobalTimeout() <= 0 {
				t.Errorf("accepted %+v", test)
			}
		}
	})
}
