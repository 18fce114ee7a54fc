package derivation

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	text := `Derive([("log","/nix/store/l","",""),("out","/nix/store/o","","")],[("/nix/store/a.drv",["out","dev"]),("/nix/store/b.drv",["out"])],["/nix/store/s"],"x86_64-linux","/bin/sh",["-c","echo \"a\\b\"\nexit\t1"],[("empty",""),("out","/nix/store/o")])`
	want := &Derivation{
		Outputs: map[string]Output{"log": {Path: "/nix/store/l"}, "out": {Path: "/nix/store/o"}},
		System:  "x86_64-linux", Builder: "/bin/sh", Args: []string{"-c", "echo \"a\\b\"\nexit\t1"},
		Env: map[string]string{"empty": "", "out": "/nix/store/o"},
	}
	got, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for n := range len(text) {
		if _, err := Parse([]byte(text[:n])); err == nil {
			t.Fatalf("accepted when cut off: %s", text[:n])
		}
	}
	for _, bad := range []string{
		text + "x", strings.Replace(text, `"empty"`, `"out"`, 1), strings.Replace(text, `"log"`, `"out"`, 1),
		"DrvWithVersion(" + text[7:], `Derive([],[],[],"","",[],[])`,
	} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("accepted: %s", bad)
		}
	}
}

// TestFixtures reads what Nix has written, see nix/offline/fixtures.sh.
func TestFixtures(t *testing.T) {
	for _, version := range []string{"2.8", "2.26"} {
		text, err := os.ReadFile("../../storedb/testdata/nix-" + version + "/result.drv")
		if err != nil {
			t.Fatal(err)
		}
		d, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if d.System != "x86_64-linux" || d.Env["name"] != "result" || len(d.Outputs) != 2 || d.Outputs["out"].Path != d.Env["out"] {
			t.Errorf("%+v", d)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("../../storedb/testdata/nix-2.26/result.drv")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		if d, err := Parse(text); err == nil && len(d.Outputs) == 0 {
			t.Error("a derivation without outputs")
		}
	})
}
