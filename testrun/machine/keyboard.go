package machine

import (
	"context"
	"time"
)

// Keyboard presses the keys of a chord, QEMU's names of keys joined by dashes,
// all at once and lets go of them.
type Keyboard interface {
	PressKeys(ctx context.Context, chord string) error
}

// SerialTyper writes to the input of the serial console.
type SerialTyper interface {
	TypeSerial(ctx context.Context, text string) error
}

// DefaultKeyDelay is how long send_key and send_chars wait after a key unless
// the script says otherwise.
const DefaultKeyDelay = 10 * time.Millisecond

// chordOf returns the keys that type a character on an American keyboard, or
// what it was given. Letters have names; for most other characters it is the
// scan code of the key (set 1), which every QEMU knows.
func chordOf(key string) string {
	if len(key) != 1 {
		return key
	}
	c := key[0]
	switch {
	case 'A' <= c && c <= 'Z':
		return "shift-" + string(c-'A'+'a')
	case c == ' ':
		return "spc"
	case c == '\n':
		return "ret"
	case c == '\t':
		return "tab"
	}
	for _, k := range scanCodes {
		switch c {
		case 0:
		case k.plain:
			return k.code
		case k.shifted:
			return "shift-" + k.code
		}
	}
	return key // digits and small letters are their own names
}

// scanCodes are the keys that go by their number.
var scanCodes = []struct {
	code           string
	plain, shifted byte // 0: has a name
}{
	{"0x02", 0, '!'},
	{"0x03", 0, '@'},
	{"0x04", 0, '#'},
	{"0x05", 0, '$'},
	{"0x06", 0, '%'},
	{"0x07", 0, '^'},
	{"0x08", 0, '&'},
	{"0x09", 0, '*'},
	{"0x0A", 0, '('},
	{"0x0B", 0, ')'},
	{"0x0C", '-', '_'},
	{"0x0D", '=', '+'},
	{"0x1A", '[', '{'},
	{"0x1B", ']', '}'},
	{"0x27", ';', ':'},
	{"0x28", '\'', '"'},
	{"0x29", '`', '~'},
	{"0x2B", '\\', '|'},
	{"0x33", ',', '<'},
	{"0x34", '.', '>'},
	{"0x35", '/', '?'},
}

// SendKey presses a key or chord ("ctrl-alt-f1"), or the key of a character,
// and then waits for delay. With quiet set it does not report that.
func (g *Guest) SendKey(ctx context.Context, key string, delay time.Duration, quiet bool) error {
	k, err := capability[Keyboard](g.Machine, "press keys")
	if err != nil {
		return err
	}
	chord := chordOf(key)
	press := func() error {
		if err := k.PressKeys(ctx, chord); err != nil {
			return err
		}
		return pause(ctx, delay)
	}
	if quiet {
		return press()
	}
	return g.nested("sending key "+PythonString(chord), press)
}

// SendChars types a text, waiting for delay after each character.
func (g *Guest) SendChars(ctx context.Context, chars string, delay time.Duration) error {
	return g.nested("sending keys "+PythonString(chars), func() error {
		for _, c := range chars {
			if err := g.SendKey(ctx, string(c), delay, true); err != nil {
				return err
			}
		}
		return nil
	})
}

// SendConsole types a text on the serial console.
func (g *Guest) SendConsole(ctx context.Context, chars string) error {
	t, err := capability[SerialTyper](g.Machine, "type on a serial console")
	if err != nil {
		return err
	}
	return t.TypeSerial(ctx, chars)
}

// pause lets d pass on the host.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
