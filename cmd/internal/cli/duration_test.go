package cli_test

import (
	"fmt"
	"testing"
	"time"

	"vm-prebuild/cmd/internal/cli"
)

type patient struct {
	Wait cli.Duration `default:"5m"`
}

func (p *patient) Run(out *cli.IO) error {
	fmt.Fprint(out.Stdout, time.Duration(p.Wait))
	return nil
}

func TestDuration(t *testing.T) {
	for value, want := range map[string]string{
		"90":      "1m30s",
		"0":       "0s",
		"1.5":     "1.5s",
		".25":     "250ms",
		"2m":      "2m0s",
		"1h1m1ms": "1h1m0.001s",
	} {
		if code, stdout, stderr := run(t.Context(), &patient{}, "--wait", value); code != 0 || stdout != want {
			t.Errorf("%s: exit %d, %q, want %q; stderr %q", value, code, stdout, want, stderr)
		}
	}
	if _, stdout, _ := run(t.Context(), &patient{}); stdout != "5m0s" {
		t.Errorf("default %q", stdout)
	}
	for value, want := range map[string]string{
		"soon": `"soon" is no duration, such as 90 or 1.5 (seconds), 90s or 2m`,
		"":     `"" is no duration, such as 90 or 1.5 (seconds), 90s or 2m`,
		"NaN":  `"NaN" is no duration, such as 90 or 1.5 (seconds), 90s or 2m`,
		"1e99": `"1e99" is no duration, such as 90 or 1.5 (seconds), 90s or 2m`,
		"-1":   `-1 is negative`,
		"-2m":  `-2m is negative`,
	} {
		code, _, stderr := run(t.Context(), &patient{}, "--wait="+value)
		want = "tool: --wait: " + want + "\nhint: run 'tool --help'\n"
		if code != 2 || stderr != want {
			t.Errorf("%q: exit %d, %q, want %q", value, code, stderr, want)
		}
	}
}
