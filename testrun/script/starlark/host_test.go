package starlark_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/script/starlark"
)

var update = flag.Bool("update", false, "write golden files")

// TestScripts runs each script of testdata and compares all that it did with
// the golden file of the same name.
func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.star")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts in testdata", err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".star")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := &transcript{}
			s := session(tr, path, "only")
			if name == "symbols" {
				s = session(tr, path, "alpha", "web-1")
			}
			s.KeepGoing = strings.HasPrefix(name, "keep_going")
			s.Subtest = map[string]string{"only": "^sec", "only_none": "third"}[name]
			err := starlark.Host{Stdout: tr, Stderr: tr}.Run(within(t, time.Minute), s)
			var failure *script.Failure
			switch {
			case errors.As(err, &failure):
				tr.printf("<failure %s, exit code %d, line %d> %s", failure.Kind, failure.ExitCode, failure.Line, failure.Message)
				for _, line := range failure.Lines {
					tr.printf("!!! %s", line)
				}
			case err != nil:
				tr.printf("<error> %v", err)
			}
			golden := filepath.Join("testdata", name+".golden")
			got := tr.String()
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("transcript differs (-want +got):\n%s", diff)
			}
		})
	}
}

// writeScript makes a script of text.
func writeScript(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script.star")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestErrorsBeforeTheScript(t *testing.T) {
	tr := &transcript{}
	for _, tc := range []struct {
		name, path, subtest, want string
	}{
		{"missing", "testdata/nonexistent.star", "", "read test script: open testdata/nonexistent.star: no such file"},
		{"directory", "testdata", "", "read test script: read testdata: is a directory"},
		{"subtest", "testdata/only.star", "(", `--subtest "(": error parsing regexp`},
	} {
		s := session(tr, tc.path, "only")
		s.Subtest = tc.subtest
		err := starlark.Host{Stdout: tr}.Run(t.Context(), s)
		var failure *script.Failure
		if err == nil || !strings.Contains(err.Error(), tc.want) || errors.As(err, &failure) {
			t.Errorf("%s: error %v", tc.name, err)
		}
	}
}

// The end of the context ends the script, whatever it does, and cannot be
// caught.
func TestCancelled(t *testing.T) {
	enough := errors.New("enough")
	for name, text := range map[string]string{
		"call":      `machine.succeed("hang")`,
		"caught":    `catch(lambda: machine.succeed("hang"))` + "\nmachine.succeed('never')",
		"kept":      `subtest("slow", lambda: machine.succeed("hang"))`,
		"loop":      "machine.start()\nwhile True:\n    pass",
		"sleep":     "machine.start()\ntime.sleep(1000)",
		"retry":     `machine.start()` + "\nretry(lambda: False)",
		"parallel":  `parallel(lambda: machine.succeed("hang"), lambda: time.sleep(1000))`,
		"condition": `polling_condition(lambda: machine.succeed("hang")).wait()`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := &transcript{}
			s := session(tr, writeScript(t, text), "only")
			s.KeepGoing = true
			caller := newCaller(tr)
			caller.calls = make(chan script.Request, 10)
			s.Caller = caller
			ctx, cancel := context.WithCancelCause(within(t, time.Minute))
			go func() {
				<-caller.calls
				cancel(enough)
			}()
			if err := (starlark.Host{Stdout: tr}).Run(ctx, s); !errors.Is(err, enough) {
				t.Errorf("got %v, want the context's cause", err)
			}
			if strings.Contains(tr.String(), "never") {
				t.Error("the script went on")
			}
		})
	}
}
