package testrun

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRuntimeDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		env                string
		wantDir, wantSaid  string
		wantError, wantNew string
	}{
		{env: "XDG_RUNTIME_DIR=" + dir + " TMPDIR=/tmp", wantDir: dir, wantSaid: "XDG_RUNTIME_DIR"},
		{env: "TMPDIR=" + dir, wantDir: dir, wantSaid: "TMPDIR"},
		{env: "TMPDIR=" + file + " TEMP=/nonexistent TMP=" + dir, wantDir: dir, wantSaid: "TMP"},
		{env: "TMPDIR=/nonexistent", wantDir: "/tmp", wantSaid: ""},
		{env: "XDG_RUNTIME_DIR=" + dir + "/new", wantDir: dir + "/new", wantSaid: "XDG_RUNTIME_DIR", wantNew: dir + "/new"},
		{env: "XDG_RUNTIME_DIR=" + file, wantError: "runtime directory " + file + " (environment variable XDG_RUNTIME_DIR): not a directory\nhint: set XDG_RUNTIME_DIR"},
		{env: "XDG_RUNTIME_DIR=" + file + "/below", wantError: "not a directory"},
		{env: "XDG_RUNTIME_DIR=/proc/nothing", wantError: "runtime directory /proc/nothing (environment variable XDG_RUNTIME_DIR): no such file"},
	} {
		t.Run(test.env, func(t *testing.T) {
			for _, name := range []string{"XDG_RUNTIME_DIR", "TMPDIR", "TEMP", "TMP"} {
				t.Setenv(name, "")
			}
			for _, setting := range strings.Fields(test.env) {
				name, value, _ := strings.Cut(setting, "=")
				t.Setenv(name, value)
			}
			_, variable, err := RuntimeDirectory()
			if err != nil {
				t.Fatal(err)
			}
			made, err := makeRuntimeDirectory()
			if test.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantError) {
					t.Errorf("%v, want %q", err, test.wantError)
				}
				return
			}
			if err != nil || made != test.wantDir || variable != test.wantSaid {
				t.Errorf("%q %q %v, want %q %q", made, variable, err, test.wantDir, test.wantSaid)
			}
			if test.wantNew == "" {
				return
			}
			if info, err := os.Stat(test.wantNew); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%v %v", info, err)
			}
		})
	}
}

func TestCheckOutDir(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ dir, want string }{
		{dir, ""},
		{file, "output directory " + file + ": not a directory\nhint: "},
		{"/nonexistent", "output directory /nonexistent: no such file or directory\nhint: "},
	} {
		c := Config{OutDir: test.dir}
		err := c.checkOutDir()
		var wrong *ConfigError
		if test.want == "" && err != nil || test.want != "" && (!errors.As(err, &wrong) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}
