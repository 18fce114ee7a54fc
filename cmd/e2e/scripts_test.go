package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// guest is a machine that scripts can ask for: testdata/guests.nix.
type guest struct {
	StartScript string `json:"start_script"`
	VLANs       []int  `json:"vlans"`
}

// buildGuests makes all of them, once.
var buildGuests = sync.OnceValues(func() (map[string]guest, error) {
	build := exec.Command("nix-build", "testdata/guests.nix", "--no-out-link")
	build.Stderr = os.Stderr
	file, err := build.Output()
	if err != nil {
		return nil, fmt.Errorf("build testdata/guests.nix: %w", err)
	}
	text, err := os.ReadFile(strings.TrimSpace(string(file)))
	if err != nil {
		return nil, err
	}
	var all map[string]guest
	return all, json.Unmarshal(text, &all)
})

// testScript is a file of testdata/scripts. Its first lines are comments:
//
//	# machines: NAME…          which of testdata/guests.nix it wants
//	# arguments: ARGUMENT…     of the driver, beside the usual ones
//	# environment: NAME=VALUE  {machine} is that machine's start script
//	# runs: N                  so often, in the same runtime directory
//	# timeout: SECONDS         the test's global time-out, otherwise that of a boot
//	# exit: N                  the exit code of the driver, otherwise 0
//	# message: TEXT            a part of exactly one line of the log
//	# never: TEXT              no part of any
type testScript struct {
	text        string
	machines    []string
	arguments   []string
	environment []string
	runs        int
	timeout     int // seconds
	exit        int
	messages    []string
	never       []string
}

var headerLine = regexp.MustCompile(`(?m)^# ([a-z]+): (.*)$`)

func readScript(t *testing.T, file string) *testScript {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &testScript{text: string(text), runs: 1, timeout: int(booting.Seconds())}
	number := func(value string) int {
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		return n
	}
	for _, m := range headerLine.FindAllStringSubmatch(s.text, -1) {
		switch key, value := m[1], m[2]; key {
		case "machines":
			s.machines = strings.Fields(value)
		case "arguments":
			s.arguments = strings.Fields(value)
		case "environment":
			s.environment = append(s.environment, value)
		case "runs":
			s.runs = number(value)
		case "timeout":
			s.timeout = number(value)
		case "exit":
			s.exit = number(value)
		case "message":
			s.messages = append(s.messages, value)
		case "never":
			s.never = append(s.never, value)
		}
	}
	if s.machines == nil {
		t.Fatalf("%s names no machines", file)
	}
	return s
}

// TestScripts runs the scripts of testdata/scripts, which are written as those
// of nixpkgs' tests are. Two run at a time: a guest keeps one core busy.
func TestScripts(t *testing.T) {
	need(t, manifestEnv) // nix/offline is ready
	guests, err := buildGuests()
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, pattern := range []string{"testdata/scripts/*.py", "testdata/scripts/*.star", "testdata/scripts/wrong/*.py"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	begin := time.Now()
	t.Run("all", func(t *testing.T) { // ends when the parallel ones have ended
		turn := make(chan struct{}, 2)
		for _, file := range files {
			name := strings.TrimSuffix(strings.TrimPrefix(file, "testdata/scripts/"), ".py")
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				turn <- struct{}{}
				defer func() { <-turn }()
				readScript(t, file).run(t, guests)
			})
		}
	})
	t.Logf("%d scripts in %v", len(files), time.Since(begin).Round(time.Second))
}

// run runs the script and looks at how it ended.
func (s *testScript) run(t *testing.T, guests map[string]guest) {
	t.Helper()
	vms, vlans := map[string]any{}, map[int]bool{}
	for _, name := range s.machines {
		g, ok := guests[name]
		if !ok {
			t.Fatalf("there is no machine %q in testdata/guests.nix", name)
		}
		vms[name] = map[string]string{"name": name, "start_script": g.StartScript}
		for _, n := range g.VLANs {
			vlans[n] = true
		}
	}
	numbers := []int{}
	for n := range vlans {
		numbers = append(numbers, n)
	}
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for range s.runs {
		c := config{
			"vms": vms, "containers": map[string]any{}, "vlans": numbers,
			"global_timeout": s.timeout, "enable_ssh_backdoor": false,
		}
		var env []string
		for _, e := range s.environment {
			for name, g := range guests {
				e = strings.ReplaceAll(e, "{"+name+"}", g.StartScript)
			}
			env = append(env, e)
		}
		r := startIn(t, dir, env, c, s.text, s.arguments...)
		begin := time.Now()
		code, log := r.end(booting + time.Minute)
		t.Logf("%.1f s", time.Since(begin).Seconds())
		if code != s.exit {
			t.Errorf("exit code %d, want %d", code, s.exit)
		}
		for _, want := range s.messages {
			if n := linesWith(log, want); n != 1 {
				t.Errorf("%d lines of the log have %q, want 1", n, want)
			}
		}
		for _, text := range s.never {
			if n := linesWith(log, text); n > 0 {
				t.Errorf("%d lines of the log have %q", n, text)
			}
		}
		r.nothingLeft(2 * time.Second)
	}
}

// linesWith counts the lines of text that have part, however they are coloured.
func linesWith(text, part string) int {
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}
