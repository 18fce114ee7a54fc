package testrun

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"time"

	"vm-prebuild/testrun/startcommand"
)

// maxConfig bounds the size of a configuration file, in bytes.
const maxConfig = 16 << 20

// ReadConfig reads a configuration file: the JSON that nixpkgs' driver.nix
// writes since 26.05. An error is a *ConfigError that names the file, and the
// line and column where there is one.
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

// configHint helps with files of another form. nixpkgs has changed it before.
const configHint = "\nhint: this is to be the configuration that driver.nix writes, of nixpkgs 26.05 and later"

func parseConfig(path string, text []byte) (Config, error) {
	c, err := decodeConfig(text)
	var at *positionError
	switch {
	case errors.As(err, &at):
		line, column := at.position(text)
		return Config{}, configErrorf("configuration %s:%d:%d: %w", path, line, column, err)
	case err != nil:
		return Config{}, configErrorf("configuration %s: %w", path, err)
	}
	if err := c.check(); err != nil {
		return Config{}, configErrorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// decodeConfig reads the members of the configuration. As in nixpkgs' driver,
// unknown ones are ignored, and all others must be there.
func decodeConfig(text []byte) (Config, error) {
	// The whole text first, so that everything below parses.
	var whole json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return Config{}, &positionError{offset: syntax.Offset, err: err}
		}
		return Config{}, err
	}
	members, err := value{text: text}.members()
	if err != nil {
		return Config{}, err
	}
	var c Config
	var timeout seconds
	for _, key := range []struct {
		name   string
		decode func(value) error
	}{
		{"vms", func(v value) (err error) { c.Machines, err = decodeMachines(v); return err }},
		{"containers", refuseContainers},
		{"vlans", func(v value) error { return v.decode(&c.VLANs) }},
		{"global_timeout", func(v value) error { return v.decode(&timeout) }},
		{"enable_ssh_backdoor", func(v value) error { return v.decode(&c.SSHBackdoor) }},
		{"test_script", func(v value) error { return v.decode(&c.ScriptPath) }},
	} {
		v, ok := last(members, key.name)
		if !ok {
			return Config{}, fmt.Errorf("key %q is missing%s", key.name, configHint)
		}
		if err := key.decode(v); err != nil {
			return Config{}, err
		}
	}
	c.GlobalTimeout = timeout.Duration
	return c, nil
}

// decodeMachines reads {NAME: {"start_script": PATH, …}, …}. The machines' key
// "name" repeats NAME.
func decodeMachines(v value) ([]MachineConfig, error) {
	members, err := v.members()
	if err != nil {
		return nil, err
	}
	var machines []MachineConfig
	for _, m := range members {
		of, err := m.members()
		if err != nil {
			return nil, err
		}
		script, ok := last(of, "start_script")
		if !ok {
			return nil, m.errorf("machine %q has no start_script", m.key)
		}
		var path string
		if err := script.decode(&path); err != nil {
			return nil, err
		}
		if path == "" {
			return nil, script.errorf("machine %q: the path of the start script is empty", m.key)
		}
		machines = append(machines, MachineConfig{Name: m.key, Command: startcommand.Command{Script: path}})
	}
	return machines, nil
}

func refuseContainers(v value) error {
	members, err := v.members()
	if err != nil {
		return err
	}
	for _, c := range members {
		return c.errorf("%q is a container, and there is no backend for containers\nhint: make it a node of the test instead", c.key)
	}
	return nil
}

// value is a JSON value, where it is in the file, and what it is called there.
type value struct {
	text   []byte // may begin with white space
	offset int64
	key    string // of its object
	path   string // from the outermost object, as in "vms.server.start_script"
}

func (v value) errorf(format string, args ...any) error {
	blank := len(v.text) - len(bytes.TrimLeft(v.text, " \t\r\n"))
	return &positionError{offset: v.offset + int64(blank) + 1, err: fmt.Errorf(format, args...)}
}

// members are those of an object, in the order of the file.
func (v value) members() ([]value, error) {
	d := json.NewDecoder(bytes.NewReader(v.text))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, v.mismatch("an object")
	}
	var members []value
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		m := value{key: key.(string), path: key.(string)}
		if v.path != "" {
			m.path = v.path + "." + m.key
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		m.text = raw
		m.offset = v.offset + d.InputOffset() - int64(len(raw))
		members = append(members, m)
	}
	return members, nil
}

// last is the member that counts: of several with one name, the last.
func last(members []value, name string) (found value, ok bool) {
	for _, m := range members {
		if m.key == name {
			found, ok = m, true
		}
	}
	return found, ok
}

// decode reads the value into dst, a pointer; null is an error.
func (v value) decode(dst any) error {
	expected := words(reflect.TypeOf(dst).Elem())
	if bytes.Equal(bytes.TrimSpace(v.text), []byte("null")) {
		return v.mismatch(expected)
	}
	err := json.Unmarshal(v.text, dst)
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		return v.mismatch(expected)
	}
	if err != nil {
		return v.errorf("key %q: %w", v.path, err)
	}
	return nil
}

func (v value) mismatch(expected string) error {
	if v.path == "" {
		return v.errorf("found %s, expected %s%s", v.kind(), expected, configHint)
	}
	return v.errorf("key %q: found %s, expected %s%s", v.path, v.kind(), expected, configHint)
}

// kind says what the value is; short ones in full.
func (v value) kind() string {
	text := bytes.TrimSpace(v.text)
	switch {
	case len(text) == 0:
		return "nothing"
	case text[0] == '{':
		return "an object"
	case text[0] == '[':
		if len(text) > 40 {
			return "a list"
		}
		return "the list " + string(text)
	case text[0] == '"':
		if len(text) > 40 {
			return "a string"
		}
		return "the string " + string(text)
	}
	return string(text) // a number, true, false, null
}

// words says in words what a value must be to fit t.
func words(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Slice:
		return "a list with " + words(t.Elem()) + " in each place"
	case reflect.String:
		return "a string"
	default:
		return durationWords
	}
}

// positionError is an error at a place of the file, in bytes from 1.
type positionError struct {
	offset int64
	err    error
}

func (p *positionError) Error() string { return p.err.Error() }
func (p *positionError) Unwrap() error { return p.err }

// position counts lines and columns from 1.
func (p *positionError) position(text []byte) (line, column int) {
	before := text[:min(max(p.offset, 0), int64(len(text)))]
	line = 1 + bytes.Count(before, []byte{'\n'})
	column = len(before) - (bytes.LastIndexByte(before, '\n') + 1)
	return line, max(column, 1)
}

// seconds is a duration as pydantic reads a timedelta: a number of seconds, or
// ISO 8601 such as "PT1H30M".
type seconds struct {
	time.Duration
}

const durationWords = `a number of seconds or a duration such as "PT1H"`

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
			return fmt.Errorf("%q is not a duration such as PT1H", v)
		}
		for i, unit := range []float64{86400, 3600, 60, 1} {
			if m[i+1] != "" {
				n, err := strconv.ParseFloat(m[i+1], 64)
				if err != nil {
					return err
				}
				total += n * unit
			}
		}
	default:
		return fmt.Errorf("found %s, expected %s", value{text: b}.kind(), durationWords)
	}
	if total < 0 || total > maxSeconds {
		return fmt.Errorf("%v seconds is out of range", total)
	}
	s.Duration = time.Duration(total * float64(time.Second))
	return nil
}
