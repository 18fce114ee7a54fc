// Package testrun runs one NixOS VM test: machines, VLANs and a script. It is
// a drop-in replacement of nixpkgs' Python test driver. [Config] says what to
// run, [ReadConfig] and [Config.UseStartScripts] make one from what nixpkgs'
// wrappers pass, and [Run] runs it.
//
// The formats and flags are those of nixpkgs' nixos/lib/test-driver, from
// NixOS 24.05 on.
package testrun

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"vm-prebuild/testrun/startcommand"
)

// Config is one test, resolved: where a value came from no longer matters.
type Config struct {
	Machines      []MachineConfig // sorted by name
	VLANs         []int
	ScriptPath    string        // the test script
	GlobalTimeout time.Duration // of the whole test; 0 means none
	OutDir        string        // existing directory for results, absolute
	KeepState     bool          // keep what earlier runs left in the state directories
	Python        string        // interpreter of Python scripts
	BootTimeout   time.Duration // of each machine; 0 means DefaultBootTimeout
	VLANBackend   VLANBackend
	PCAPDir       string // directory for a capture of each VLAN, relative to OutDir; "" for none
}

// MachineConfig is one machine of a test.
type MachineConfig struct {
	Name    string
	Command startcommand.Command
}

// VLANBackend says what connects the machines of a VLAN.
type VLANBackend string

// The VLAN backends.
const (
	// Hub is a hub inside the driver's process. It is the default.
	Hub VLANBackend = "hub"
	// VDESwitch is an external vde_switch process, one a VLAN.
	VDESwitch VLANBackend = "vde_switch"
)

// Defaults of a Config.
const (
	DefaultGlobalTimeout = time.Hour
	DefaultBootTimeout   = 5 * time.Minute
)

// ConfigError says that a test cannot be run as it is described.
type ConfigError struct {
	Err error
}

func (e *ConfigError) Error() string { return e.Err.Error() }
func (e *ConfigError) Unwrap() error { return e.Err }

// ExitCode is that of wrong usage or configuration.
func (e *ConfigError) ExitCode() int { return 2 }

func configErrorf(format string, args ...any) error {
	return &ConfigError{Err: fmt.Errorf(format, args...)}
}

// file is the JSON that nixpkgs' driver.nix writes since 26.05. Unknown keys
// are ignored, as there. Pointers tell missing keys from empty ones.
type file struct {
	VMs           *map[string]fileMachine `json:"vms"`
	Containers    *map[string]fileMachine `json:"containers"`
	VLANs         *[]int                  `json:"vlans"`
	GlobalTimeout *seconds                `json:"global_timeout"`
	SSHBackdoor   *bool                   `json:"enable_ssh_backdoor"`
	TestScript    *string                 `json:"test_script"`
}

// fileMachine lacks the key "name": it repeats the machine's key in VMs.
type fileMachine struct {
	StartScript string `json:"start_script"`
}

// maxConfig bounds the size of a configuration file, in bytes.
const maxConfig = 16 << 20

// ReadConfig reads a configuration file. An error is a *ConfigError that names
// the file, and the line and column where there is one.
func ReadConfig(path string) (Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Config{}, configErrorf("configuration %s: %w\nhint: pass the file that driver.nix wrote with --config", path, unpath(err))
	}
	if info.Size() > maxConfig || !info.Mode().IsRegular() {
		return Config{}, configErrorf("configuration %s: not a regular file of at most %d bytes", path, maxConfig)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, configErrorf("configuration %s: %w", path, unpath(err))
	}
	return parseConfig(path, text)
}

func parseConfig(path string, text []byte) (Config, error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return Config{}, configErrorf("configuration %s:%s%w", path, position(text, err), err)
	}
	for _, key := range []struct {
		name  string
		found bool
	}{
		{"vms", f.VMs != nil}, {"containers", f.Containers != nil}, {"vlans", f.VLANs != nil},
		{"global_timeout", f.GlobalTimeout != nil}, {"enable_ssh_backdoor", f.SSHBackdoor != nil}, {"test_script", f.TestScript != nil},
	} {
		if !key.found {
			return Config{}, configErrorf("configuration %s: key %q is missing", path, key.name)
		}
	}
	if len(*f.Containers) > 0 {
		name := slices.Min(slices.Collect(maps.Keys(*f.Containers)))
		return Config{}, configErrorf("configuration %s: %q is a container, and there is no backend for containers\nhint: make it a node of the test instead", path, name)
	}
	if *f.SSHBackdoor {
		return Config{}, configErrorf("configuration %s: enable_ssh_backdoor is set, and there is no SSH backdoor\nhint: set sshBackdoor.enable = false in the test", path)
	}
	c := Config{VLANs: *f.VLANs, GlobalTimeout: f.GlobalTimeout.Duration, ScriptPath: *f.TestScript}
	for name, m := range *f.VMs {
		if m.StartScript == "" {
			return Config{}, configErrorf("configuration %s: machine %q has no start_script", path, name)
		}
		c.Machines = append(c.Machines, MachineConfig{Name: name, Command: startcommand.Command{Script: m.StartScript}})
	}
	if err := c.check(); err != nil {
		return Config{}, configErrorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// position returns "LINE:COLUMN: " of a JSON error, or a space.
func position(text []byte, err error) string {
	offset := int64(-1)
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &typ):
		offset = typ.Offset
	}
	if offset < 0 || offset > int64(len(text)) {
		return " "
	}
	before := text[:offset]
	line := 1 + bytes.Count(before, []byte{'\n'})
	column := len(before) - (bytes.LastIndexByte(before, '\n') + 1)
	return fmt.Sprintf("%d:%d: ", line, max(column, 1))
}

// UseStartScripts sets the machines of a wrapper from before 26.05, which
// passes start scripts and, in some versions, names.
func (c *Config) UseStartScripts(names, scripts []string) error {
	if len(names) > 0 && len(names) != len(scripts) {
		return configErrorf("%d machine names for %d start scripts", len(names), len(scripts))
	}
	c.Machines = nil
	for i, s := range scripts {
		m := MachineConfig{Command: startcommand.Command{Script: s}}
		m.Name = m.Command.Name()
		if len(names) > 0 {
			m.Name = names[i]
		}
		c.Machines = append(c.Machines, m)
	}
	if err := c.check(); err != nil {
		return &ConfigError{Err: err}
	}
	return nil
}

// machineName is what may be part of a file name and of a host name.
var machineName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,62})$`)

// check sorts the machines, makes their start scripts absolute (they are
// executed in another directory) and refuses what would not run.
func (c *Config) check() error {
	slices.SortFunc(c.Machines, func(a, b MachineConfig) int { return strings.Compare(a.Name, b.Name) })
	for i := range c.Machines {
		m := &c.Machines[i]
		if m.Command.Script != "" {
			script, err := filepath.Abs(m.Command.Script)
			if err != nil {
				return fmt.Errorf("machine %q: %w", m.Name, err)
			}
			m.Command.Script = script
		}
		if !machineName.MatchString(m.Name) {
			return fmt.Errorf("machine name %q is not a host name", m.Name)
		}
		if i > 0 && c.Machines[i-1].Name == m.Name {
			return fmt.Errorf("two machines are named %q", m.Name)
		}
		if err := m.Command.Check(); err != nil {
			return fmt.Errorf("machine %q: %w", m.Name, err)
		}
	}
	seen := map[int]bool{}
	for _, n := range c.VLANs {
		// The number is one byte of the machines' MAC and IP addresses.
		if n < 0 || n > 255 {
			return fmt.Errorf("VLAN number %d is not between 0 and 255", n)
		}
		if seen[n] {
			return fmt.Errorf("VLAN %d is listed twice", n)
		}
		seen[n] = true
	}
	if c.PCAPDir != "" && c.VLANBackend == VDESwitch {
		return fmt.Errorf("VLANs cannot be captured when vde_switch connects the machines\nhint: use the built-in hub")
	}
	if c.GlobalTimeout < 0 {
		return fmt.Errorf("global time-out %v is negative", c.GlobalTimeout)
	}
	return nil
}

// checkScript refuses a test script that cannot be read.
func (c *Config) checkScript() error {
	f, err := os.Open(c.ScriptPath)
	if err != nil {
		return configErrorf("test script %s: %w", c.ScriptPath, unpath(err))
	}
	return f.Close()
}

// seconds is a duration as pydantic reads a timedelta: a number of seconds, or
// ISO 8601 such as "PT1H30M".
type seconds struct {
	time.Duration
}

var isoDuration = regexp.MustCompile(`^P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$`)

// maxSeconds is ten years: more is a mistake, and would overflow a Duration.
const maxSeconds = 10 * 365 * 24 * 3600

func (s *seconds) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	var total float64
	switch v := v.(type) {
	case float64:
		total = v
	case string:
		m := isoDuration.FindStringSubmatch(v)
		if m == nil || v == "P" {
			return fmt.Errorf("global_timeout: %q is not a duration such as PT1H", v)
		}
		for i, unit := range []float64{86400, 3600, 60, 1} {
			if m[i+1] != "" {
				n, err := strconv.ParseFloat(m[i+1], 64)
				if err != nil {
					return fmt.Errorf("global_timeout: %w", err)
				}
				total += n * unit
			}
		}
	default:
		return fmt.Errorf("global_timeout: %s is neither a number of seconds nor a duration such as \"PT1H\"", b)
	}
	if total < 0 || total > maxSeconds {
		return fmt.Errorf("global_timeout: %v seconds is out of range", total)
	}
	s.Duration = time.Duration(total * float64(time.Second))
	return nil
}

// unpath drops the path from a file error, for messages that name it already.
func unpath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
