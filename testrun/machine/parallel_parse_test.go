package machine

import (
	"reflect"
	"testing"
)

func TestParseParallel(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		commands   int
		want       []Result // nil: an error
	}{
		{"none", "", 0, []Result{}},
		{"two", "0 3 0\na\nb124 0 2\n\x00\n", 2, []Result{
			{Stdout: []byte("a\nb"), Stderr: []byte{}}, {Status: 124, Stdout: []byte{}, Stderr: []byte("\x00\n")},
		}},
		{"missing", "0 0 0\n", 2, nil},
		{"too many", "0 0 0\n0 0 0\n", 1, nil},
		{"short", "0 3 0\nab", 1, nil},
		{"both too long", "0 2 2\nabc", 1, nil},
		{"negative", "0 -1 0\n", 1, nil},
		{"huge", "0 9223372036854775807 9223372036854775807\n", 1, nil},
		{"words", "a b c\n", 1, nil},
		{"no line", "0 0 0", 1, nil},
	} {
		got, err := parseParallel([]byte(tc.text), tc.commands)
		if (err == nil) != (tc.want != nil) || err == nil && !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %v %v", tc.name, got, err)
		}
	}
}

func FuzzParseParallel(f *testing.F) {
	f.Add([]byte("0 1 1\nab"), 1)
	f.Add([]byte("1 0 0\n0 2 0\n\n\n"), 2)
	f.Fuzz(func(t *testing.T, text []byte, commands int) {
		commands = min(max(commands, 0), 100)
		results, err := parseParallel(text, commands)
		if err == nil && len(results) != commands {
			t.Errorf("%d results of %d", len(results), commands)
		}
	})
}
