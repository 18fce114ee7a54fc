package pyregexp_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"vm-prebuild/testrun/pyregexp"
)

// cases are expressions and texts; Python itself says which match.
var cases = []struct{ pattern, text string }{
	{`login: `, "machine login: "},
	{`^login`, "machine\nlogin"},
	{`(?m)^login`, "machine\nlogin"},
	{`end$`, "the end\n"},
	{`end\Z`, "the end\n"},
	{`end\Z`, "the end"},
	{`\Astart`, "start\n"},
	{`foo(?!bar)`, "foobar"},
	{`foo(?!bar)`, "foobaz"},
	{`(?<=a)b`, "ab"},
	{`(?<!a)b`, "ab"},
	{`(?P<x>a|b)-(c)-(?P=x)-\2`, "a-c-a-c"},
	{`(?P<x>a|b)-(c)-\1`, "a-c-a"},
	{`(?P<x>a|b)-(c)-\1`, "a-c-c"},
	{`(?P<q>")?x(?(q)"|')`, `"x"`},
	{`(?P<q>")?x(?(q)"|')`, `"x'`},
	{`(a)?b(?(1)c|d)`, "abc"},
	{`[[]x[]]`, "[x]"},
	{`[]a]+`, "]a]"},
	{`[^]]`, "]"},
	{`[a-z-[aeiou]]`, "b]"},
	{`[a-z-[aeiou]]`, "b"},
	{`[\Z]?a`, "a"},
	{`(?i)WELCOME`, "Welcome"},
	{`(?i:WEL)come`, "Welcome"},
	{`(?i:WEL)COME`, "Welcome"},
	{`(?-i:a)B`, "ab"},
	{`(?s)a.b`, "a\nb"},
	{`a.b`, "a\nb"},
	{`(?ai)\w+E`, "ae"},
	{`(?#comment)x`, "x"},
	{"(?x) a b # comment", "ab"},
	{`\d+\.\d+`, "version 24.05"},
	{`\w+@\w+`, "käse@host"},
	{`x{2}`, "xx"},
	{`x{`, "x{"},
	{`x{,2}y`, "xxxy"},
	{`\$ $`, "[root@machine:~]$ "},
	{`(?>a+)b`, "aab"},
	{`\U0001F600`, "😀"},
	{`\u00e9`, "é"},
	{`(?:)`, ""},
	{`a|`, "b"},
	{`end$`, "the end\n\n"},
	{`a$\n`, "a\n"},
	{`(?m)a$`, "a\nb"},
	{`\d\D\w\W\s\S`, "٣x_-\u00a0y"},
	{`^[\w.]+$`, "käse.٣"},
	{`[\s]x[^\s]`, "\u2003xy"},
	{`[\D]`, "1"},
	{`\bé\b`, "a é b"},
	{`(?i)straSSe ſ`, "STRASSE s"},
	{`(a|ab)(c|bcd)$`, "abcd"},
	{`x*?y+?`, "xxy"},
	{`[[:alpha:]]`, "a]"},
	{`\.\-\/`, ".-/"},
	{`a.c`, "a\rc"},
}

// TestAgainstPython compares with what the re module of the installed Python
// says.
func TestAgainstPython(t *testing.T) {
	const program = `
import json, re, sys, warnings
warnings.simplefilter("ignore")
def answer(pattern, text):
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return None
json.dump([answer(*case) for case in json.load(sys.stdin)], sys.stdout)`
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	var in [][2]string
	for _, c := range cases {
		in = append(in, [2]string{c.pattern, c.text})
	}
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", program)
	cmd.Stdin = strings.NewReader(string(data))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answers []*bool
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		re, err := pyregexp.Compile(c.pattern)
		if err != nil {
			if answers[i] != nil {
				t.Errorf("%s: %v", c.pattern, err)
			}
			continue
		}
		got, err := re.Search(c.text)
		if err != nil || answers[i] == nil || got != *answers[i] {
			t.Errorf("%s in %q: %v %v", c.pattern, c.text, got, err)
		}
	}
}

func TestBadExpressions(t *testing.T) {
	for _, pattern := range []string{`(`, `a)`, `[a`, `\`, `(?P<x`, `(?P=x)`, `(?P=x`, `(?(x)a)`, `(?Li)x`, `\N{DASH}`, `a**`, `(?P<x>a`, `\Uffffffff`, `(?#`} {
		if re, err := pyregexp.Compile(pattern); err == nil || !strings.Contains(err.Error(), "regular expression") {
			t.Errorf("%s: %v %v", pattern, re, err)
		}
	}
}

func TestNothingTakesForEver(t *testing.T) {
	// Python needs minutes for this.
	text := strings.Repeat("Started unit 17 of many. ", 4000)
	for pattern, want := range map[string]bool{`Started.*unit 17 .*the end$`: false, `Started.*unit 17 .*many. $`: true} {
		re, err := pyregexp.Compile(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := re.SearchBytes([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %v %v", pattern, got, err)
		}
	}
}
