package pyregexp

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// fromZero is a repetition without a lower bound, which .NET takes literally.
var fromZero = regexp.MustCompile(`^\{,[0-9]+\}`)

// leadingZero is a repetition that Go takes literally.
var leadingZero = regexp.MustCompile(`^\{[0-9,]*0[0-9]`)

// translate rewrites an expression of Python for regexp2:
//   - named groups become numbered ones, since .NET counts them after all
//     others and Python does not: (?P<n>…), (?P=n), (?(n)…|…);
//   - \Z, the end of the text, is \z;
//   - [ in a class has no meaning in Python, and begins a subtraction in .NET;
//   - {,n} is {0,n};
//   - \d, \w and \s are spelled out;
//   - the flag u is the default, and a has no counterpart: it is ignored.
//
// With linear set it is for Go's regexp: what means something else there is
// rewritten, too, or is an error.
func translate(source string, linear bool) (string, error) {
	t := translator{rest: source, groups: map[string]int{}, linear: linear}
	for t.rest != "" {
		if err := t.step(); err != nil {
			return "", err
		}
	}
	return t.flags + t.out.String(), nil
}

type translator struct {
	rest   string
	out    strings.Builder
	flags  string // global flags, which Python takes only at the beginning
	count  int    // capturing groups so far
	groups map[string]int
	linear bool
}

// errBacktracks says that Go's regexp would match something else.
var errBacktracks = errors.New("not for a linear search")

// keep copies the next n bytes.
func (t *translator) keep(n int) {
	t.out.WriteString(t.rest[:n])
	t.rest = t.rest[n:]
}

// put writes s for the next n bytes.
func (t *translator) put(s string, n int) {
	t.out.WriteString(s)
	t.rest = t.rest[n:]
}

func (t *translator) step() error {
	switch t.rest[0] {
	case '\\':
		return t.escape(false)
	case '$':
		if t.linear {
			// At the end, and before a line feed there, which nothing else may
			// want then.
			if strings.Trim(t.rest[1:], ")") != "" {
				return errBacktracks
			}
			t.put(`(?:\n?\z)`, 1)
			return nil
		}
	case '[':
		return t.class()
	case '(':
		return t.group()
	case '{':
		if t.linear && leadingZero.MatchString(t.rest) {
			return errBacktracks
		}
		if fromZero.MatchString(t.rest) {
			t.put("{0", 1)
			return nil
		}
	}
	t.keep(1)
	return nil
}

func (t *translator) escape(inClass bool) error {
	if len(t.rest) > 1 {
		done, err := t.unicodeClass(inClass)
		if done || err != nil {
			return err
		}
	}
	switch {
	case len(t.rest) < 2:
		return errors.New("bad escape (end of pattern)")
	case t.rest[1] == 'Z':
		t.put(`\z`, 2)
	case t.rest[1] == 'N':
		return errors.New(`\N is not supported`)
	case t.rest[1] == 'U' && len(t.rest) >= 10:
		return t.character()
	default:
		t.keep(2)
	}
	return nil
}

// unicodeClass translates \d, \w and \s, which are of ASCII only in Go, and a
// few characters less or more in .NET.
func (t *translator) unicodeClass(inClass bool) (done bool, err error) {
	c := t.rest[1]
	members, ok := map[byte]string{
		'd': `\p{Nd}`,
		'w': `\p{L}\p{N}_`,
		's': `\t-\r\x1c-\x20\x85\p{Z}`,
	}[c|0x20]
	switch {
	case t.linear && (c == 'b' || c == 'B' || ok && inClass && c&0x20 == 0):
		return false, errBacktracks
	case !ok || inClass && c&0x20 == 0:
		return false, nil
	case inClass:
		t.put(members, 2)
	case c&0x20 == 0:
		t.put("[^"+members+"]", 2)
	default:
		t.put("["+members+"]", 2)
	}
	return true, nil
}

// character translates \UXXXXXXXX.
func (t *translator) character() error {
	r, err := strconv.ParseUint(t.rest[2:10], 16, 21)
	if err != nil {
		return fmt.Errorf("bad escape %s", t.rest[:10])
	}
	s := string(rune(r))
	if r < 0x80 {
		s = fmt.Sprintf(`\x%02x`, r)
	}
	t.put(s, 10)
	return nil
}

// class copies a set of characters. A ] that comes first is one of them.
func (t *translator) class() error {
	n := 1
	if strings.HasPrefix(t.rest[n:], "^") {
		n++
	}
	t.keep(n)
	if strings.HasPrefix(t.rest, "]") {
		t.put(`\]`, 1)
	}
	for t.rest != "" {
		switch t.rest[0] {
		case ']':
			t.keep(1)
			return nil
		case '[':
			t.put(`\[`, 1)
		case '\\':
			if err := t.escape(true); err != nil {
				return err
			}
		default:
			t.keep(1)
		}
	}
	return errors.New("unterminated character set")
}

func (t *translator) group() error {
	switch {
	case !strings.HasPrefix(t.rest, "(?"):
		t.count++
		t.keep(1)
	case strings.HasPrefix(t.rest, "(?P<"):
		name, n, err := t.name("(?P<", ">")
		if err != nil {
			return err
		}
		t.count++
		t.groups[name] = t.count
		t.put("(", n)
	case strings.HasPrefix(t.rest, "(?P="):
		name, n, err := t.name("(?P=", ")")
		if err != nil {
			return err
		}
		number, ok := t.groups[name]
		if !ok {
			return fmt.Errorf("unknown group name %q", name)
		}
		t.put(fmt.Sprintf(`(?:\%d)`, number), n)
	case strings.HasPrefix(t.rest, "(?("):
		name, n, err := t.name("(?(", ")")
		if err != nil {
			return err
		}
		number, ok := t.groups[name]
		if !ok {
			if number, err = strconv.Atoi(name); err != nil {
				return fmt.Errorf("unknown group name %q", name)
			}
		}
		t.put(fmt.Sprintf(`(?(%d)`, number), n)
	case strings.HasPrefix(t.rest, "(?#"):
		_, n, err := t.name("(?#", ")")
		if err != nil {
			return err
		}
		t.put("", n)
	default:
		return t.option()
	}
	return nil
}

// option translates the flags of (?flags) and (?flags-flags:…), and copies
// what else may follow "(?".
func (t *translator) option() error {
	end := strings.IndexAny(t.rest, ":)")
	if end < 0 || strings.Trim(t.rest[2:end], "aiLmsux-") != "" {
		t.keep(2)
		return nil
	}
	given := t.rest[2:end]
	if strings.Contains(given, "L") {
		return errors.New("flag L is not supported")
	}
	if t.linear && strings.ContainsAny(given, "mx") {
		return errBacktracks
	}
	flags := strings.TrimSuffix(strings.NewReplacer("a", "", "u", "").Replace(given), "-")
	switch {
	case t.rest[end] == ':':
		t.put("(?"+flags+":", end+1)
	case flags == "":
		t.put("", end+1)
	default:
		t.flags += "(?" + flags + ")"
		t.put("", end+1)
	}
	return nil
}

// name returns what is between begin, which the rest begins with, and end, and
// the length of all three.
func (t *translator) name(begin, end string) (string, int, error) {
	name, _, ok := strings.Cut(t.rest[len(begin):], end)
	if !ok {
		return "", 0, fmt.Errorf("missing %s, unterminated name", end)
	}
	return name, len(begin) + len(name) + len(end), nil
}
