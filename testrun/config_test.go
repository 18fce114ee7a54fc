package testrun

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startScript makes a file that passes for a start script.
func startScript(t testing.TB, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

const whole = `{
  "vms": {
    "server": {"name": "server", "start_script": "%[1]s"},
    "client": {"name": "client", "start_script": "%[1]s"}
  },
  "containers": {},
  "vlans": [1, 2],
  "global_timeout": %[2]s,
  "enable_ssh_backdoor": false,
  "test_script": "/nix/store/x-script",
  "a_key_of_tomorrow": null
}`

func TestReadConfig(t *testing.T) {
	script := startScript(t, t.TempDir(), "run-any-vm")
	for text, want := range map[string]time.Duration{
		"3600": time.Hour, "0.5": time.Second / 2, `"PT1H"`: time.Hour,
		`"P1DT2H3M4.5S"`: 26*time.Hour + 3*time.Minute + 4500*time.Millisecond, "0": 0,
	} {
		file := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(file, fmt.Appendf(nil, whole, script, text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := ReadConfig(file)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if c.GlobalTimeout != want || len(c.VLANs) != 2 || c.ScriptPath != "/nix/store/x-script" ||
			len(c.Machines) != 2 || c.Machines[0].Name != "client" || c.Machines[1].Command.Script != script {
			t.Errorf("%s: %+v", text, c)
		}
	}
}

func TestBadConfig(t *testing.T) {
	dir := t.TempDir()
	script := startScript(t, dir, "run-any-vm")
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	config := func(edit ...string) string {
		return strings.NewReplacer(edit...).Replace(fmt.Sprintf(whole, script, "3600"))
	}
	tests := []struct{ name, text, want string }{
		{"empty", "", "config.json:1:1: unexpected end of JSON input"},
		{"malformed", config("[1, 2]", "[1, 2"), "config.json:8:"},
		{"not an object", "[]", "config.json:1:1: found the list [], expected an object"},
		{"wrong type", config("[1, 2]", `"1 2"`), `config.json:7:12: key "vlans": found the string "1 2", expected a list with a whole number in each place`},
		{"wrong type in a list", config("[1, 2]", `[1, "2"]`), `config.json:7:12: key "vlans": found the list [1, "2"], expected`},
		{"fraction", config("[1, 2]", `[1.5]`), `config.json:7:12: key "vlans": found the list [1.5], expected`},
		{"null", config("[1, 2]", `null`), `config.json:7:12: key "vlans": found null, expected a list`},
		{"word for a flag", config("false", `"no"`), `key "enable_ssh_backdoor": found the string "no", expected true or false`},
		{"number for a path", config(`"/nix/store/x-script"`, "7"), `key "test_script": found 7, expected a string`},
		{"machines in a list", config(`"containers": {}`, `"vms": [{}], "containers": {}`), `key "vms": found the list [{}], expected an object`},
		{"machine that is a path", config(`"vms": {`, `"vms": {"x": "/run-x-vm",`), `config.json:2:16: key "vms.x": found the string "/run-x-vm", expected an object`},
		{"start script that is a number", config(`"vms": {`, `"vms": {"x": {"start_script": 1},`), `key "vms.x.start_script": found 1, expected a string`},
		{"start script without a path", config(`"vms": {`, `"vms": {"x": {"start_script": ""},`), `machine "x": the path of the start script is empty`},
		{"missing key", config(`"test_script"`, `"tset_script"`), `key "test_script" is missing`},
		{"time-out of another kind", config("3600", "true"), `config.json:8:21: key "global_timeout": found true, expected a number of seconds or a duration such as "PT1H"`},
		{"no time-out", config("3600", "null"), `key "global_timeout": found null, expected a number of seconds`},
		{"time-out in words", config("3600", `"an hour"`), `"an hour" is not a duration`},
		{"negative time-out", config("3600", "-1"), "out of range"},
		{"endless time-out", config("3600", "1e300"), "out of range"},
		{"container", config(`"containers": {}`, `"containers": {"c": {"name": "c", "start_script": "/x"}}`), `"c" is a container`},
		{"machine without script", config("start_script", "script"), "has no start_script"},
		{"machine name that leaves the directory", config(`"server":`, `"../x":`), `machine name "../x" is not a host name`},
		{"VLAN twice", config("[1, 2]", "[1, 1]"), "VLAN 1 is listed twice"},
		{"VLAN out of range", config("[1, 2]", "[256]"), "VLAN number 256"},
		{"start script that does not exist", config(script, "/nonexistent/run-x-vm"), "/nonexistent/run-x-vm: "},
		{"start script that cannot be executed", config(script, plain), "is not executable"},
		{"start script that is a directory", config(script, dir), "is not a regular file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.json")
			if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := ReadConfig(file)
			var c *ConfigError
			if !errors.As(err, &c) || c.ExitCode() != 2 {
				t.Fatalf("error %v, want a ConfigError", err)
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), file) {
				t.Errorf("error %q, want the file and %q", err, test.want)
			}
		})
	}
	for _, text := range []string{config("[1, 2]", `"x"`), config("3600", "[]")} {
		if _, err := parseConfig("config.json", []byte(text)); err == nil || strings.Contains(err.Error(), "Go ") || strings.Contains(err.Error(), "testrun.") {
			t.Errorf("error %v, want one in words", err)
		}
	}
	if _, err := ReadConfig("/nonexistent"); err == nil || !strings.Contains(err.Error(), "/nonexistent: no such file or directory\nhint: ") {
		t.Errorf("%v", err)
	}
	if _, err := ReadConfig(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("%v", err)
	}
}

func TestUseStartScripts(t *testing.T) {
	dir := t.TempDir()
	web, odd := startScript(t, dir, "run-web-vm"), startScript(t, dir, "start.sh")
	var c Config
	if err := c.UseStartScripts(nil, []string{web, odd}); err != nil {
		t.Fatal(err)
	}
	if c.Machines[0].Name != "machine" || c.Machines[1].Name != "web" {
		t.Errorf("names %q and %q", c.Machines[0].Name, c.Machines[1].Name)
	}
	if err := c.UseStartScripts([]string{"a", "b"}, []string{web, odd}); err != nil || c.Machines[1].Name != "b" {
		t.Errorf("%v %+v", err, c.Machines)
	}
	// Start scripts are executed in another directory than ours.
	t.Chdir(dir)
	if err := c.UseStartScripts(nil, []string{"run-web-vm"}); err != nil || c.Machines[0].Command.Script != web {
		t.Errorf("%v %+v", err, c.Machines)
	}
	for _, test := range []struct {
		names, scripts []string
		want           string
	}{
		{[]string{"a"}, []string{web, odd}, "1 machine names for 2 start scripts"},
		{nil, []string{web, web}, `two machines are named "web"`},
		{nil, []string{"/nonexistent"}, "no such file"},
	} {
		err := c.UseStartScripts(test.names, test.scripts)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	script := startScript(f, f.TempDir(), "run-any-vm")
	f.Add(fmt.Appendf(nil, whole, script, "3600"))
	f.Add([]byte(`{"vms":{"":{}},"containers":{},"vlans":[],"global_timeout":"P","enable_ssh_backdoor":false,"test_script":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseConfig("fuzz.json", text)
		var ce *ConfigError
		if err != nil && !errors.As(err, &ce) {
			t.Errorf("error %v is not a ConfigError", err)
		}
		if err == nil && c.GlobalTimeout < 0 {
			t.Errorf("time-out %v", c.GlobalTimeout)
		}
	})
}
