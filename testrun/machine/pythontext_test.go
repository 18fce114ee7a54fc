package machine_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"vm-prebuild/testrun/machine"
)

// TestTextAsPython compares with Python itself.
func TestTextAsPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	inputs := []string{"plain", "é", "a\xff\xfeb", "\xe2\x82", "\xe2\x82x", "\xf0\x9f\x98", "\xf0\x9f\x98\x80", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80", "\xe0\x80\x80", "\xf0\x80x", "\xc3"}
	for _, in := range inputs {
		hex := strings.Trim(strconv.QuoteToASCII(in), `"`)
		cmd := exec.Command(python, "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read().decode('utf-8', 'replace').encode())")
		cmd.Stdin = strings.NewReader(in)
		want, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := machine.Text([]byte(in)); got != string(want) {
			t.Errorf("%s: %q, Python has %q", hex, got, want)
		}
	}
}
