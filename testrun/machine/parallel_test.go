package machine_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	g, _, _ := newGuest(t)
	r, err := g.Run(t.Context(), `printf 'a\0b'; exit 3`, 0)
	if err != nil || r.Status != 3 || string(r.Stdout) != "a\x00b" {
		t.Errorf("%+v %v", r, err)
	}
	if r, err = g.Run(t.Context(), "sleep 60", 100*time.Millisecond); err != nil || r.Status != 124 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestParallel(t *testing.T) {
	g, _, log := newGuest(t)
	// The first two end only if they run at the same time.
	fifo := filepath.Join(t.TempDir(), "fifo")
	if _, err := g.Succeed(t.Context(), []string{"mkfifo " + fifo}, 0); err != nil {
		t.Fatal(err)
	}
	results, err := g.Parallel(t.Context(), []string{
		"echo it\\'s >" + fifo,
		"cat " + fifo,
		`head -c 3000000 /dev/zero; printf 'why\0\n' >&2; exit 7`,
		"echo before; sleep 600",
		"cat", // its input is empty
	}, 4*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		status      int
		out, stderr string
	}{
		{0, "", ""}, {0, "it's\n", ""}, {7, string(make([]byte, 3000000)), "why\x00\n"}, {124, "before\n", ""}, {0, "", ""},
	} {
		r := results[i]
		if r.Status != want.status || !bytes.Equal(r.Stdout, []byte(want.out)) || string(r.Stderr) != want.stderr {
			t.Errorf("command %d: status %d, %d bytes %.20q, stderr %q", i, r.Status, len(r.Stdout), r.Stdout, r.Stderr)
		}
	}
	if !strings.HasPrefix(log.lines[1], "running at once: echo it\\'s >") {
		t.Errorf("log %q", log.lines)
	}
	if results, err := g.Parallel(t.Context(), nil, 0); err != nil || len(results) != 0 {
		t.Errorf("no commands: %v %v", results, err)
	}
}
