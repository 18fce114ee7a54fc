package suite

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ManifestVersion is the only version of the manifest that is read.
const ManifestVersion = 1

// maxManifestSize bounds what is read into memory, in bytes; a test takes
// about half a kibibyte.
const maxManifestSize = 64 << 20

// Manifest lists prebuilt tests. nix/vm-prebuild.nix writes it as JSON; fields
// that this version does not know are ignored.
type Manifest struct {
	Version     int             `json:"version"`     // ManifestVersion
	System      string          `json:"system"`      // Nix system of the host, "x86_64-linux"
	ClosureInfo string          `json:"closureInfo"` // directory made by nixpkgs' closureInfo over all tests
	Tests       map[string]Test `json:"tests"`       // by name
}

// Test is one prebuilt test.
type Test struct {
	Driver               string    `json:"driver"`     // absolute path of its nixos-test-driver
	Derivation           string    `json:"derivation"` // derivation that runs the test in the Nix sandbox; may be empty
	Machines             []Machine `json:"machines"`
	VLANs                []int     `json:"vlans"`
	GlobalTimeoutSeconds int       `json:"globalTimeoutSeconds"` // the driver's own time-out
}

// Machine is what a machine of a test takes from its host.
type Machine struct {
	Name      string `json:"name"`
	MemoryMiB int    `json:"memoryMiB"`
	Cores     int    `json:"cores"`
}

// GlobalTimeout is the driver's own time-out.
func (t Test) GlobalTimeout() time.Duration {
	return time.Duration(t.GlobalTimeoutSeconds) * time.Second
}

// MemoryMiB is the memory of all machines of the test.
func (t Test) MemoryMiB() (sum int) {
	for _, m := range t.Machines {
		sum += m.MemoryMiB
	}
	return sum
}

// Cores is the number of virtual cores of all machines of the test, at least 1.
func (t Test) Cores() (sum int) {
	for _, m := range t.Machines {
		sum += m.Cores
	}
	return max(sum, 1)
}

// Names returns the names of the tests, sorted.
func (m *Manifest) Names() []string {
	return slices.Sorted(maps.Keys(m.Tests))
}

// Select returns the names of the tests to run, sorted: those of wanted (all
// when it is empty) that match filter. A name that the manifest does not have is
// an error, and so is a selection of nothing.
func (m *Manifest) Select(wanted []string, filter *regexp.Regexp) ([]string, error) {
	for _, name := range wanted {
		if _, ok := m.Tests[name]; !ok {
			return nil, fmt.Errorf("there is no test %q\nhint: --list shows the tests that there are", name)
		}
	}
	var names []string
	for _, name := range m.Names() {
		if (len(wanted) == 0 || slices.Contains(wanted, name)) && filter.MatchString(name) {
			names = append(names, name)
		}
	}
	switch {
	case len(m.Tests) == 0:
		return nil, errors.New("the manifest has no tests")
	case len(names) == 0:
		return nil, fmt.Errorf("no test matches %q\nhint: --list shows the tests that there are", filter)
	}
	return names, nil
}

// ManifestError says what is wrong with a manifest.
type ManifestError struct {
	Path string // the file
	Err  error  // the reason
}

func (e *ManifestError) Error() string { return fmt.Sprintf("manifest %s: %v", e.Path, e.Err) }
func (e *ManifestError) Unwrap() error { return e.Err }

// ExitCode is that of a configuration error.
func (e *ManifestError) ExitCode() int { return 2 }

// ReadManifest reads and checks the manifest at path. All its errors are of
// type *[ManifestError].
func ReadManifest(path string) (*Manifest, error) {
	m, err := readManifest(path)
	if err != nil {
		if pathErr, ok := errors.AsType[*os.PathError](err); ok {
			err = pathErr.Err // the path is said already
		}
		return nil, &ManifestError{Path: path, Err: err}
	}
	return m, nil
}

func readManifest(path string) (*Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifestSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxManifestSize {
		return nil, fmt.Errorf("larger than %d MiB", maxManifestSize>>20)
	}
	return parseManifest(data)
}

func parseManifest(data []byte) (*Manifest, error) {
	// The version decides what the rest means, so it is looked at first.
	var head struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, jsonError(data, err)
	}
	if head.Version == nil {
		return nil, errors.New("has no version")
	}
	if *head.Version != ManifestVersion {
		return nil, fmt.Errorf("has version %d, this tool reads version %d\nhint: use the run-vm-tests and vm-prebuild that made it",
			*head.Version, ManifestVersion)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, jsonError(data, err)
	}
	return &m, m.check()
}

// jsonError adds the line to an error of package json.
func jsonError(data []byte, err error) error {
	var offset int64
	var syntax *json.SyntaxError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &wrongType):
		offset = wrongType.Offset
		err = fmt.Errorf("%q cannot be a %s", wrongType.Field, wrongType.Value)
	default:
		return err
	}
	before := data[:min(offset, int64(len(data)))]
	return fmt.Errorf("line %d: %w", 1+bytes.Count(before, []byte("\n")), err)
}

// testName matches names that are also a name of a directory and safe to show.
var testName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]*$`)

// CheckName says whether name can be that of a test.
func CheckName(name string) error {
	if !testName.MatchString(name) || len(name) > 200 {
		return fmt.Errorf("test name %q: only letters, digits and ._+- are allowed, 200 at most", name)
	}
	return nil
}

func (m *Manifest) check() error {
	if m.System == "" {
		return errors.New("has no system")
	}
	if !cleanAbs(m.ClosureInfo) {
		return fmt.Errorf("closureInfo %q is not an absolute path", m.ClosureInfo)
	}
	for _, name := range m.Names() {
		if err := CheckName(name); err != nil {
			return err
		}
		if err := m.Tests[name].check(); err != nil {
			return fmt.Errorf("test %q: %w", name, err)
		}
	}
	return nil
}

func (t Test) check() error {
	if !cleanAbs(t.Driver) {
		return fmt.Errorf("driver %q is not an absolute path", t.Driver)
	}
	if t.Derivation != "" && (!cleanAbs(t.Derivation) || !strings.HasSuffix(t.Derivation, ".drv")) {
		return fmt.Errorf("derivation %q is not the path of a .drv file", t.Derivation)
	}
	if t.GlobalTimeoutSeconds <= 0 || t.GlobalTimeoutSeconds > 366*24*3600 {
		return fmt.Errorf("globalTimeoutSeconds is %d, must be positive and at most a year", t.GlobalTimeoutSeconds)
	}
	for _, v := range t.VLANs {
		if v < 0 {
			return fmt.Errorf("VLAN %d is negative", v)
		}
	}
	for _, machine := range t.Machines {
		switch {
		case machine.Name == "":
			return errors.New("a machine has no name")
		case machine.MemoryMiB <= 0 || machine.MemoryMiB > 1<<30:
			return fmt.Errorf("machine %q: memoryMiB is %d", machine.Name, machine.MemoryMiB)
		case machine.Cores <= 0 || machine.Cores > 1<<16:
			return fmt.Errorf("machine %q: cores is %d", machine.Name, machine.Cores)
		}
	}
	return nil
}

func cleanAbs(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path
}
