package main

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	wall := func(all ...time.Duration) spread {
		var samples []sample
		for _, d := range all {
			samples = append(samples, sample{Wall: d})
		}
		return spreadOf(samples, func(s sample) time.Duration { return s.Wall })
	}
	for _, c := range []struct{ got, want spread }{
		{wall(3, 1, 2), spread{2, 1, 3}},
		{wall(4, 10, 1, 2), spread{3, 1, 10}},
		{wall(7), spread{7, 7, 7}},
	} {
		if c.got != c.want {
			t.Errorf("%+v, want %+v", c.got, c.want)
		}
	}
}

// TestJobs checks that lines are about contenders that there are, and that
// their names are unique.
func TestJobs(t *testing.T) {
	seen := map[string]bool{}
	for _, j := range jobs(1) {
		names := map[string]bool{}
		for _, c := range j.contenders {
			names[c.name] = true
			if c.check == "" && j.check == "" && j.name != "exec, at ten times the bytes" {
				t.Errorf("%s: nobody checks what %s did", j.name, c.name)
			}
		}
		for _, l := range j.lines {
			if !names[l.ours] || !names[l.theirs] || seen[l.name] {
				t.Errorf("line %+v", l)
			}
			seen[l.name] = true
		}
		if mkfs[j.fs] == "" {
			t.Errorf("%s: unknown file system %q", j.name, j.fs)
		}
	}
}

func TestSelectLines(t *testing.T) {
	selected := selectLines(jobs(1), regexp.MustCompile("30000 paths with a database image"))
	if len(selected) != 1 || len(selected[0].lines) != 1 || len(selected[0].contenders) != 2 {
		t.Errorf("%+v", selected)
	}
}

// TestVerdict judges lines of whose sides one is a thousand times the other.
func TestVerdict(t *testing.T) {
	took := func(d time.Duration, size string) sample { return sample{Wall: d, MaxRSS: 1 << 20, Note: size} }
	large := took(1, "")
	large.MaxRSS = maxRSS + 1
	for _, c := range []struct {
		name         string
		scale        float64
		line         line
		ours, theirs sample
		failed       map[string]error
		want         string
	}{
		{"reached", 1, line{target: 999}, took(1, ""), took(1000, ""), nil, "ok"},
		{"missed", 1, line{target: 1001}, took(1, ""), took(1000, ""), nil, "MISSED"},
		{"no target", 1, line{}, took(1, ""), took(1, ""), nil, "not judged"},
		{"scaled", 0.5, line{target: 1001}, took(1, ""), took(1000, ""), nil, "not judged"},
		{"memory", 1, line{target: 2}, large, took(1000, ""), nil, "TOO MUCH MEMORY"},
		{"larger", 1, line{target: 2, sizes: true}, took(1, "201"), took(1000, "200"), nil, "TOO LARGE: 1.0050 of theirs"},
		{"as large", 1, line{target: 2, sizes: true}, took(1, "200"), took(1000, "200"), nil, "ok"},
		{"we failed", 0.5, line{}, took(1, ""), took(1, ""), map[string]error{"ours": errors.New("no")}, "FAILED: ours"},
		{"they failed", 1, line{}, took(1, ""), took(1, ""), map[string]error{"theirs": errors.New("no")}, "FAILED: theirs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &report{Scale: c.scale}
			c.line.ours, c.line.theirs, c.line.name = "ours", "theirs", c.name
			r.add(c.line, &results{samples: map[string][]sample{"ours": {c.ours}, "theirs": {c.theirs}}, failed: c.failed})
			if got := r.Results[0].verdict(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			good := c.want == "ok" || c.want == "not judged"
			if (len(r.bad()) == 0) != good {
				t.Errorf("bad lines: %q", r.bad())
			}
		})
	}
}

func TestCurve(t *testing.T) {
	c := curve{Name: "linear"}
	for _, n := range []int{10, 100, 1000} {
		c.Points = append(c.Points, point{Size: n, Wall: spread{Median: time.Duration(n) * time.Millisecond}})
	}
	if got := c.exponent(); math.Abs(got-1) > 1e-9 {
		t.Errorf("exponent %v, want 1", got)
	}
	file := filepath.Join(t.TempDir(), "plot.svg")
	if err := writePlot(file, drawing{title: "Seconds by paths", base: 10}, []curve{c, {Name: "failed"}, c}, "machine"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Labels of curves that end at the same place do not overlap.
	labels := regexp.MustCompile(`y="([0-9.]+)" dx="4" dy="4" fill="[^"]*">linear<`).FindAllStringSubmatch(string(text), -1)
	if len(labels) != 2 || labels[0][1] == labels[1][1] || strings.Contains(string(text), "failed") {
		t.Errorf("labels %q in\n%s", labels, text)
	}
	if err := writePlot(file, drawing{base: 10}, nil, ""); err == nil {
		t.Error("nothing was drawn")
	}
}
