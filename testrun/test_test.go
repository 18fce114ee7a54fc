package testrun

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vm-prebuild/testrun/startcommand"
)

// A Go program's test reports like that of a script, and leaves nothing.
func TestOpen(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fail   error
		report string
	}{
		{"passes", nil, `failures="0"`},
		{"fails", errors.New("the answer is 41"), `failures="1"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := runtimeDir(t)
			start := filepath.Join(dir, "run-web-vm")
			if err := os.WriteFile(start, []byte("#!/bin/sh\nexit 7\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			cfg := Config{
				Machines: []MachineConfig{
					{Name: "web", Command: startcommand.Command{Script: start}},
					{Name: "db", Command: startcommand.Command{Script: start}},
				},
				VLANs: []int{1}, OutDir: t.TempDir(),
			}
			var log bytes.Buffer
			vms, err := Open(t.Context(), cfg, Options{Log: &log, JUnit: "junit.xml"})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := vms.Close(); err != nil {
					t.Error(err)
				}
			}()
			var names []string
			for _, g := range vms.Machines() {
				names = append(names, g.Machine.Name())
			}
			if strings.Join(names, " ") != "db web" {
				t.Errorf("machines %q", names)
			}
			if _, err := vms.Machine("nobody"); err == nil || !strings.Contains(err.Error(), `no machine named "nobody"`) {
				t.Errorf("error %v", err)
			}
			if err := vms.Subtest("good", func() error { return nil }); err != nil {
				t.Error(err)
			}
			// Every machine that cannot be started is named.
			err = vms.StartAll(t.Context())
			if err == nil || !strings.Contains(err.Error(), `"web"`) || !strings.Contains(err.Error(), `"db"`) {
				t.Errorf("error %v", err)
			}
			if _, err := vms.SucceedAll(t.Context(), "true", 0, "web"); err == nil || !strings.Contains(err.Error(), `machine "web": `) {
				t.Errorf("error %v", err)
			}
			vms.Log("a message")
			if tc.fail != nil {
				if err := vms.Subtest("bad", func() error { return tc.fail }); !errors.Is(err, tc.fail) {
					t.Errorf("error %v", err)
				}
				vms.Fail(tc.fail)
			}
			for range 2 {
				if err := vms.Close(); err != nil {
					t.Error(err)
				}
			}
			for _, want := range []string{"a message\n", "subtest: good\n", "start all VMs\n", "cleanup\n"} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("the log lacks %q:\n%s", want, log.String())
				}
			}
			report, err := os.ReadFile(filepath.Join(cfg.OutDir, "junit.xml"))
			if err != nil || !strings.Contains(string(report), tc.report) {
				t.Errorf("JUnit report: %v\n%s", err, report)
			}
			// The directories are free again.
			d, err := claimDirectories(true)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.release(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpenThatCannotBegin(t *testing.T) {
	runtimeDir(t)
	var wrong *ConfigError
	for name, cfg := range map[string]Config{
		"no directory": {OutDir: "/nonexistent"},
		"VLAN":         {OutDir: t.TempDir(), VLANs: []int{1000}},
	} {
		if _, err := Open(t.Context(), cfg, Options{Log: &bytes.Buffer{}}); !errors.As(err, &wrong) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
