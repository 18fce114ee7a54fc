package testrun

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/reaper"
)

func TestMain(m *testing.M) {
	reaper.Main()
	os.Exit(m.Run())
}

// runtimeDir makes a runtime directory for the drivers of a test.
func runtimeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "run") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("XDG_RUNTIME_DIR", dir)
	return dir
}

// A driver that cannot be set up undoes what it has done and says so, in the
// JUnit report too.
func TestRunThatCannotBegin(t *testing.T) {
	dir := runtimeDir(t)
	if err := os.WriteFile(filepath.Join(dir, "vde1.ctl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "script.py")
	if err := os.WriteFile(script, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{VLANs: []int{1}, ScriptPath: script, OutDir: dir}
	var log bytes.Buffer
	err := Run(t.Context(), cfg, Options{Log: &log, LogLevel: event.Info, JUnit: "junit.xml"})
	var failed *RunError
	if !errors.As(err, &failed) || failed.ExitCode() != 3 || !strings.Contains(err.Error(), "VLAN 1: ") {
		t.Errorf("error %v, want one of exit code 3 that names the VLAN", err)
	}
	report, err := os.ReadFile(filepath.Join(dir, "junit.xml"))
	if err != nil || !strings.Contains(string(report), `failures="1"`) {
		t.Errorf("JUnit report: %v\n%s", err, report)
	}
	// Its directories are free again.
	d, err := claimDirectories(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.release(); err != nil {
		t.Error(err)
	}
}

func TestTwoDriversSideBySide(t *testing.T) {
	base := runtimeDir(t)
	first, err := claimDirectories(false)
	if err != nil {
		t.Fatal(err)
	}
	if first.tmp != base || first.private {
		t.Errorf("the first driver got %s", first.tmp)
	}
	second, err := claimDirectories(false)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(second.tmp) != base || !second.private || filepath.Dir(second.shared) != second.tmp {
		t.Errorf("the second driver got %s and %s", second.tmp, second.shared)
	}
	if _, err := claimDirectories(true); err == nil || !strings.Contains(err.Error(), "hint: wait for it to end") {
		t.Errorf("error %v for a third driver that keeps states", err)
	}
	for _, d := range []directories{second, first} {
		if err := d.release(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(second.tmp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second driver's directory: %v", err)
	}
}
