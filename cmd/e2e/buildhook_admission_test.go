package e2e

import (
	"encoding/json"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vm-prebuild/buildhook"
	"vm-prebuild/buildhook/admission"
)

// logEntry is a line of the hook's log.
type logEntry struct {
	Time   time.Time
	Drv    string
	Event  string
	Reason string
	Demand *admission.Demand
}

func (n *hookNix) logEntries() (entries []logEntry) {
	n.t.Helper()
	for line := range strings.Lines(n.decisions()) {
		var e logEntry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			n.t.Fatalf("%v: %s", err, line)
		}
		entries = append(entries, e)
	}
	return entries
}

// TestHookAdmission builds twenty tests at once under a budget for three.
func TestHookAdmission(t *testing.T) {
	n := oneHookNix(t)
	const tests, atOnce, seconds, compileJobs = 20, 3, 3, 20
	count := []string{"--arg", "count", strconv.Itoa(tests), "--arg", "seconds", strconv.Itoa(seconds)}
	n.mustBuild("drivers", count...)
	n.flags("--tcg=allow", "--memory", "3500M", "--cores", "16")

	cmd := n.buildCommand("many jobs", append(count, "--max-jobs", "2")...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	most, samples, jobsDone := 0, 0, time.Time{}
	for running := true; running; {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("%v\n%s", err, n.decisions())
			}
			running = false
		case <-time.After(15 * time.Millisecond):
		}
		s, err := buildhook.ReadStatus(n.hookDir, buildhook.Budget{MemoryMiB: 3500, Cores: 16})
		if err != nil {
			t.Fatal(err)
		}
		if s.Used.MemoryMiB > 3500 || len(s.Running) > atOnce {
			t.Fatalf("over budget: %+v", s)
		}
		most, samples = max(most, len(s.Running)), samples+1
		if jobsDone.IsZero() {
			built, err := filepath.Glob(filepath.Join(n.root, "nix/store/*-job-*[0-9]"))
			if err != nil {
				t.Fatal(err)
			}
			if len(built) == compileJobs {
				jobsDone = time.Now()
			}
		}
	}
	var begin, end, lastAccepted time.Time
	built, waits := 0, map[string]time.Time{}
	for _, e := range n.logEntries() {
		switch e.Event {
		case "accepted":
			if e.Demand.MemoryMiB != 1000 || e.Demand.Cores != 1 {
				t.Errorf("%+v is taken to need %+v", e.Drv, e.Demand)
			}
			if begin.IsZero() {
				begin = e.Time
			}
			lastAccepted = e.Time
			waits[e.Drv] = e.Time
		case "built":
			built++
			end = e.Time
		}
	}
	ideal := time.Duration((tests+atOnce-1)/atOnce) * seconds * time.Second
	wall := end.Sub(begin)
	t.Logf("%d tests took %v, ideal is %v: %.3f; at most %d ran at once in %d samples; compile jobs were done after %v",
		tests, wall, ideal, float64(wall)/float64(ideal), most, samples, jobsDone.Sub(begin))
	if built != tests || len(waits) != tests {
		t.Errorf("%d of %d tests were built", built, tests)
	}
	if most != atOnce {
		t.Errorf("only %d tests ran at once", most)
	}
	if float64(wall) > 1.15*float64(ideal) {
		t.Errorf("%v is more than 1.15 times %v", wall, ideal)
	}
	// Tests that wait take no place from compile jobs, nor the other way round.
	if jobsDone.IsZero() || jobsDone.Sub(begin) > wall/2 || lastAccepted.Sub(begin) > wall/2 {
		t.Errorf("compile jobs were done after %v, the last test was accepted after %v", jobsDone.Sub(begin), lastAccepted.Sub(begin))
	}
	n.checkClean()
}
