// Package testrun runs one NixOS VM test: machines, VLANs and a script. It is
// a drop-in replacement of nixpkgs' Python test driver. [Config] says what to
// run, [ReadConfig] and [Config.UseStartScripts] make one from what nixpkgs'
// wrappers pass, and [Run] runs it.
//
// The formats and flags are those of nixpkgs' nixos/lib/test-driver, from
// NixOS 24.05 on.
package testrun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"vm-prebuild/testrun/pyregexp"
	"vm-prebuild/testrun/startcommand"
	"vm-prebuild/testrun/warm"
)

// Config is one test, resolved: where a value came from no longer matters.
type Config struct {
	Machines      []MachineConfig // sorted by name
	VLANs         []int
	ScriptPath    string        // the test script
	GlobalTimeout time.Duration // of the whole test; 0 means none
	OutDir        string        // existing directory for results, absolute
	KeepState     bool          // keep what earlier runs left in the state directories
	Language      Language      // of the script; "" means what its name says
	Python        string        // interpreter of Python scripts
	Subtest       string        // regular expression: only subtests with such names run; "" means all
	KeepGoing     bool          // a subtest that fails does not end the test
	BootTimeout   time.Duration // of each machine; 0 means DefaultBootTimeout
	Accel         Accel         // of all machines; "" means AccelAuto
	Warm          warm.Options  // starting from saved states; the zero value is for booting
	VLANBackend   VLANBackend
	PCAPDir       string // directory for a capture of each VLAN, relative to OutDir; "" for none
	DebugHook     string // command that attaches to a test held at a breakpoint; "" for none

	// SSHBackdoor has vhost-device-vsock connect SSH clients of the host with
	// the machines.
	SSHBackdoor bool
	// VSOCKOffset is greater than 0 when start scripts of before NixOS 26.05 give
	// their guests the context identifiers VSOCKOffset+1, VSOCKOffset+2, …
	VSOCKOffset int
}

// MachineConfig is one machine of a test.
type MachineConfig struct {
	Name    string
	Command startcommand.Command
}

// Accel says whether machines run under KVM.
type Accel string

// What machines can run under.
const (
	// AccelAuto is KVM where guest code really runs under it, and else TCG.
	AccelAuto Accel = "auto"
	// AccelKVM is KVM; where it does not work, no machine starts.
	AccelKVM Accel = "kvm"
	// AccelTCG is QEMU's emulation of the CPU, many times slower and the same on
	// every host.
	AccelTCG Accel = "tcg"
)

// VLANBackend says what connects the machines of a VLAN.
type VLANBackend string

// The VLAN backends.
const (
	// Hub is a hub inside the driver's process. It is the default.
	Hub VLANBackend = "hub"
	// VDESwitch is an external vde_switch process, one a VLAN.
	VDESwitch VLANBackend = "vde_switch"
)

// Language is what a test script is written in.
type Language string

// The languages of test scripts.
const (
	Python   Language = "python"
	Starlark Language = "starlark"
)

// ScriptLanguage is the language of the script: Language, else Starlark where
// the script's name ends in ".star", else Python.
func (c *Config) ScriptLanguage() Language {
	switch {
	case c.Language != "":
		return c.Language
	case filepath.Ext(c.ScriptPath) == ".star":
		return Starlark
	}
	return Python
}

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
	if c.Warm.Enabled() && c.KeepState {
		return errors.New("the disks of an earlier run do not go with machines that start from saved states\nhint: leave out --keep-machine-state, or say --warm=off")
	}
	if c.GlobalTimeout < 0 {
		return fmt.Errorf("global time-out %v is negative", c.GlobalTimeout)
	}
	switch c.Accel {
	case "", AccelAuto, AccelKVM, AccelTCG:
	default:
		return fmt.Errorf("machines do not run under %q\nhint: there are auto, kvm and tcg", c.Accel)
	}
	switch c.Language {
	case "", Python, Starlark:
	default:
		return fmt.Errorf("test scripts are not written in %q\nhint: there are python and starlark", c.Language)
	}
	if _, err := pyregexp.Compile(c.Subtest); err != nil {
		return fmt.Errorf("subtests: %w", err)
	}
	if c.SSHBackdoor && c.VSOCKOffset > 0 {
		return errors.New("the SSH backdoor is either of the new kind or of the old one\nhint: with enable_ssh_backdoor, leave out --dump-vsocks")
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

// unpath drops the path from a file error, for messages that name it already.
func unpath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
