package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func model(t *testing.T, grammar any) *kong.Kong {
	t.Helper()
	parser, err := kong.New(grammar, kong.Exit(func(int) { t.Error("exit") }), kong.Writers(t.Output(), t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	return parser
}

func TestArgparse(t *testing.T) {
	parser := model(t, &grammar{})
	// A comma stands for the NUL that ends a word.
	for in, want := range map[string]string{
		"":                         "",
		"--vlans 1 2 -K":           "--vlans=1,2, -K",
		"--vlans":                  "--vlans=",
		"--vlans -K s.py":          "--vlans= -K s.py",
		"--vlans=1 s.py":           "--vlans=1, s.py",
		"--vlans 1 --vlans 2":      "--vlans=1, --vlans=2,",
		"--vlans 1 2 eval x 3":     "--vlans=1,2, eval x 3",
		"--vlans config -K":        "--vlans= config -K",
		"--vlans 1 s.py":           "--vlans=1,s.py,", // an error, as in nixpkgs' driver
		"--vm-names run eval":      "--vm-names=run,eval,",
		"--start-scripts a b":      "--start-scripts=a,b,",
		"--vlans 1 -- s.py --nope": "--vlans=1, -- s.py --nope",
		"-o out --vm-names a -I":   "-o out --vm-names=a, -I",
		"--vm-n a b --vm-s c d":    "--vm-names=a,b, --vm-start-scripts=c,d,",
		"--debug-hook=/x":          "--debug-hook-attach=/x",
		"--debug-hook /x":          "--debug-hook-attach /x",
		"--debug-hook=a=b":         "--debug-hook-attach=a=b",
		"--no-inter":               "--no-interactive",
		"--inter --no-i":           "--interactive --no-interactive",
		"--out d --output_d=d":     "--output-directory d --output_directory=d",
		"--keep-vm":                "--keep-vm-state",
		"--keep":                   "--keep-machine-state", // both names of nixpkgs' flag; --keep-going is ours
		"--keep-g":                 "--keep-going",
		"--s a":                    "--start-scripts=a,", // as in nixpkgs' driver, though we have --script
		"--sc a --su b":            "--script a --subtest b",
		"--serial-d c":             "--serial-dir c",
		"--log=debug --j x":        "--log-level=debug --junit-xml x",
		"config --json --config a": "config --json --config a",
		"--nope=1":                 "--nope=1",
		"-":                        "-",
	} {
		got, err := argparse(parser.Model, strings.Fields(in))
		if err != nil {
			t.Errorf("%q: %v", in, err)
		}
		for i := range got {
			got[i] = strings.ReplaceAll(got[i], "\x00", ",")
		}
		if !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"--vm a":       "flag --vm is ambiguous: it could be --vm-names, --vm-start-scripts",
		"--vm-":        "flag --vm- is ambiguous: it could be --vm-names, --vm-start-scripts",
		"-K --co=x":    "flag --co is ambiguous: it could be --config, --container-names, --container-start-scripts",
		"--jso x":      "flag --jso is ambiguous: it could be --json, --jsonl",
		"--vlans 1 --": "",
	} {
		_, err := argparse(parser.Model, strings.Fields(in))
		if got := errorText(err); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// The words of flags that take several are those of the command line, blanks
// and all; those of the environment are between blanks.
func TestWords(t *testing.T) {
	for _, test := range []struct {
		args []string
		env  string
		want words
	}{
		{nil, "", nil},
		{nil, " a  b\n", words{"a", "b"}},
		{[]string{"--start-scripts", "a b", "c"}, "d", words{"a b", "c"}},
		{[]string{"--start-scripts=a b"}, "d", words{"a b"}},
		{[]string{"--start-scripts"}, "d", nil},
		{[]string{"--start-scripts", "a", "--start", "b"}, "", words{"b"}},
	} {
		t.Setenv("startScripts", test.env)
		var g grammar
		parser := model(t, &g)
		args, err := argparse(parser.Model, test.args)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(args); err != nil {
			t.Errorf("%q: %v", test.args, err)
		}
		if !slices.Equal(g.StartScripts, test.want) {
			t.Errorf("%q with %q: %q, want %q", test.args, test.env, g.StartScripts, test.want)
		}
	}
}

func FuzzArgparse(f *testing.F) {
	f.Add("--vlans 1 2 --debug-hook=x -KI -- a")
	f.Add("--keep --no-inter --vm-n a b")
	var g grammar
	parser, err := kong.New(&g)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args, err := argparse(parser.Model, strings.Split(line, " "))
		if err != nil {
			return
		}
		// What is complete stays as it is.
		again, err := argparse(parser.Model, args)
		if err != nil {
			t.Fatalf("%q became %q: %v", line, args, err)
		}
		if len(again) != len(args) {
			t.Errorf("%q became %q, and that %q", line, args, again)
		}
	})
}
