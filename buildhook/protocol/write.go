package protocol

import (
	"encoding/json"
	"io"
	"maps"
	"slices"

	"github.com/nix-community/go-nix/pkg/wire"
)

// Write writes settings as Nix does, which sorts them.
func (s Settings) Write(w io.Writer) error {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if err := write(w, 1, name, s[name]); err != nil {
			return err
		}
	}
	return write(w, 0)
}

// Write writes a question as Nix does.
func (t Try) Write(w io.Writer) error {
	willing := 0
	if t.Willing {
		willing = 1
	}
	return write(w, "try", willing, t.System, t.Drv, t.Features)
}

// Write writes what is known of an accepted derivation as Nix does.
func (j Job) Write(w io.Writer) error { return write(w, j.Inputs, j.Outputs) }

// write writes numbers, strings and lists of strings.
func write(w io.Writer, values ...any) error {
	for _, value := range values {
		var err error
		switch v := value.(type) {
		case int:
			err = wire.WriteUint64(w, uint64(v))
		case string:
			err = wire.WriteString(w, v)
		case []string:
			err = wire.WriteUint64(w, uint64(len(v)))
			for _, s := range v {
				if err == nil {
					err = wire.WriteString(w, s)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Reply is an answer to a question.
type Reply string

// The replies. There is one more, by which Nix never asks again.
const (
	Decline  Reply = "# decline\n"  // build it yourself
	Postpone Reply = "# postpone\n" // ask again, in five seconds at the earliest
	// Accept is followed by a line with the name of the machine that builds.
	Accept Reply = "# accept\n"
)

// Level is how much a message matters to Nix's logger.
type Level int

// The levels that are used here.
const (
	LevelError Level = 0
	LevelWarn  Level = 1
	LevelInfo  Level = 3
)

// Message is a line for standard error that Nix's logger shows, also to the
// client of a daemon, where plain lines end up in the daemon's own log.
func Message(level Level, text string) string {
	return line(map[string]any{"action": "msg", "level": level, "msg": text})
}

// Phase is a line for the builder's log that says which phase a build is in.
func Phase(name string) string {
	return line(map[string]any{"action": "setPhase", "phase": name})
}

func line(v map[string]any) string {
	text, _ := json.Marshal(v) // strings and numbers always have a form
	return "@nix " + string(text) + "\n"
}
