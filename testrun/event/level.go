package event

import "fmt"

// levels are the names of the levels, as in nixpkgs' --log-level.
var levels = [...]string{Debug: "debug", Info: "info", Warning: "warning", Error: "error"}

// String is the level's name: "debug", "info", "warning" or "error".
func (l Level) String() string {
	if l < 0 || int(l) >= len(levels) {
		return fmt.Sprintf("level %d", int(l))
	}
	return levels[l]
}

// MarshalText implements encoding.TextMarshaler.
func (l Level) MarshalText() ([]byte, error) {
	if l < 0 || int(l) >= len(levels) {
		return nil, fmt.Errorf("log level %d does not exist", int(l))
	}
	return []byte(levels[l]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Level) UnmarshalText(text []byte) error {
	for i, name := range levels {
		if name == string(text) {
			*l = Level(i)
			return nil
		}
	}
	return fmt.Errorf("log level %q does not exist", text)
}
