package e2e

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	suiteSize   = 100
	suiteLimit  = 10 * time.Second
	suiteMemory = 1 << 30 // bytes
)

// hundredTests is a flake with a hundred tests of two machines each, no two
// alike, that says when a machine of one of them is evaluated.
const hundredTests = `{
  inputs.nixpkgs.url = "github:nixos/nixpkgs/nixos-unstable";
  inputs.vm-prebuild.url = "path:%s";
  inputs.vm-prebuild.inputs.nixpkgs.follows = "nixpkgs";
  outputs = { nixpkgs, vm-prebuild, ... }:
    let
      test = n: {
        nodes.server.environment.etc.number.text = builtins.trace "evaluated test ${toString n}" (toString n);
        nodes.client = { virtualisation.memorySize = 512 + n; };
        testScript = "assert server.succeed('cat /etc/number') == '${toString n}'";
      };
    in {
      checks.x86_64-linux = (vm-prebuild.lib.mkVmTests {
        pkgs = nixpkgs.legacyPackages.x86_64-linux;
        tests = builtins.listToAttrs (builtins.genList (n: { name = "vm-${toString n}"; value = test n; }) %d);
      }).checks;
    };
}`

// TestPlanOfAHundredTests plans a suite of a hundred tests with all Nix versions
// that are at hand: each test is evaluated once, by several processes, within a
// bound of time and one of memory. It boots nothing.
func TestPlanOfAHundredTests(t *testing.T) {
	vmPrebuild := tool(t, "vm-prebuild")
	source, dir := tree(t), t.TempDir()
	text := fmt.Sprintf(hundredTests, source, suiteSize)
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := cmp.Or(os.Getenv("VM_PREBUILD_TRIXIE"), "/var/cache/vm-prebuild/trixie") // see nix/offline/trixie.sh
	for name, path := range map[string]string{
		"Nix 2.8":  os.Getenv("PATH"),
		"Nix 2.26": filepath.Join(newer, "bin") + ":" + os.Getenv("PATH"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", path)
			if version, err := command(t, dir, "nix", "--version"); err != nil || !strings.Contains(version, strings.TrimPrefix(name, "Nix ")+".") {
				if os.Getenv("CI") != "" {
					t.Fatalf("%v: %s", err, version)
				}
				t.Skipf("not at hand: %v: %s", err, version)
			}
			plan := func(args ...string) (stdout, stderr string, used resources) {
				t.Helper()
				args = append([]string{"plan", "--shards", "3"}, args...)
				cmd := exec.CommandContext(t.Context(), vmPrebuild, append(args, "--",
					"--override-input", "nixpkgs", "path:"+source+"/nix/offline", "--no-write-lock-file")...)
				cmd.Dir = dir
				var out, log bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &log
				used, err := measure(cmd)
				if err != nil {
					t.Fatalf("%v\n%s", err, &log)
				}
				return out.String(), log.String(), used
			}
			out, log, used := plan("--json")
			for range 2 { // others may have had the processors
				if used.time <= suiteLimit {
					break
				}
				t.Logf("took %v; once more", used.time)
				out, log, used = plan("--json")
			}
			t.Logf("%v, %d MiB, %d evaluating processes", used.time.Round(time.Millisecond), used.memory>>20, used.evaluating)
			if used.time > suiteLimit || used.memory > suiteMemory {
				t.Errorf("took %v and %d MiB, want less than %v and %d MiB", used.time, used.memory>>20, suiteLimit, suiteMemory>>20)
			}
			if runtime.GOMAXPROCS(0) > 1 && used.evaluating < 2 {
				t.Errorf("%d process evaluated at a time", used.evaluating)
			}
			evaluated := map[string]int{}
			for _, match := range regexp.MustCompile(`evaluated test (\d+)`).FindAllStringSubmatch(log, -1) {
				evaluated[match[1]]++
			}
			for n := range suiteSize {
				if times := evaluated[strconv.Itoa(n)]; times != 1 {
					t.Errorf("test %d was evaluated %d times", n, times)
				}
			}
			var got struct {
				Tests []struct {
					Name, Target string
					Build        []string
				}
				Shards []struct{ Tests []string }
			}
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatal(err)
			}
			targets := map[string]bool{}
			for _, test := range got.Tests {
				targets[test.Target] = true
				if !slices.Contains(test.Build, test.Target) {
					t.Errorf("%s: its driver is not to be built", test.Name)
				}
			}
			if len(got.Tests) != suiteSize || len(targets) != suiteSize || len(got.Shards) != 3 {
				t.Errorf("%d tests, %d drivers, %d shards", len(got.Tests), len(targets), len(got.Shards))
			}
			if strings.Contains(log, "vm-prebuild: attribute") {
				t.Error("our own traces are in the log")
			}

			matrix, _, _ := plan("--format", "github-matrix")
			again, _, _ := plan("--format", "github-matrix")
			if matrix != again || strings.Count(matrix, "\n") != 1 || strings.Count(matrix, "vm-") != suiteSize {
				t.Errorf("the matrices differ, have more than a line, or lack tests:\n%s%s", matrix, again)
			}
		})
	}
}

// TestMatrix plans the example's tests for two machines: what the jobs of the
// matrix name is what run-vm-tests takes, and it is every test once. It boots
// nothing.
func TestMatrix(t *testing.T) {
	manifest := need(t, manifestEnv)
	reports := t.TempDir()
	const junit = `<testsuites name="vm-tests"><testsuite><testcase name="vm-help" time="100"></testcase>
<testcase name="vm-themes" time="1"></testcase><testcase name="vm-two-machines" time="2"></testcase></testsuite></testsuites>`
	if err := os.WriteFile(filepath.Join(reports, "junit.xml"), []byte(junit), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), tool(t, "vm-prebuild"),
		append([]string{"plan", "--format", "github-matrix", "--shards", "2", "--durations", reports, "--"}, offline...)...)
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var matrix struct {
		Include []struct {
			Shard, Shards int
			Seconds       float64
			Tests         string
		}
	}
	if err := json.Unmarshal(out, &matrix); err != nil || len(matrix.Include) != 2 {
		t.Fatalf("%v: %s", err, out)
	}
	list := func(args ...string) string {
		t.Helper()
		out, err := command(t, top, tool(t, "run-vm-tests"), append([]string{"--manifest", manifest, "--list"}, args...)...)
		if err != nil {
			t.Fatal(out)
		}
		return out
	}
	var both []string
	for _, job := range matrix.Include {
		names := strings.Fields(job.Tests)
		both = append(both, names...)
		if got := list(names...); got != strings.Join(names, "\n")+"\n" {
			t.Errorf("run-vm-tests makes of %q: %q", job.Tests, got)
		}
		// A machine that knows the same durations comes to the same part.
		if got := list("--shard", fmt.Sprintf("%d/%d", job.Shard, job.Shards), "--durations", reports); strings.Join(strings.Fields(got), " ") != job.Tests {
			t.Errorf("job %d runs %q, --shard makes %q", job.Shard, job.Tests, got)
		}
	}
	slices.Sort(both)
	if all := list(); strings.Join(both, "\n")+"\n" != all {
		t.Errorf("the jobs run %q, the suite is %q", both, all)
	}
	// The one that takes long is alone.
	if job := matrix.Include[0]; job.Tests != "vm-help" || job.Seconds != 100 {
		t.Errorf("%+v", job)
	}
}

// resources are what a process and all below it used.
type resources struct {
	time       time.Duration
	memory     int64 // resident, of all together at their peak, bytes; what several share counts for each
	evaluating int   // most processes at once that evaluated with nix
}

// measure runs cmd and looks at its processes every few milliseconds.
func measure(cmd *exec.Cmd) (used resources, err error) {
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return used, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			used.time = time.Since(start)
			return used, err
		case <-tick.C:
			memory, evaluating := look(cmd.Process.Pid)
			used.memory, used.evaluating = max(used.memory, memory), max(used.evaluating, evaluating)
		}
	}
}

// look sums up the process and all below it.
func look(pid int) (memory int64, evaluating int) {
	proc := fmt.Sprintf("/proc/%d/", pid)
	if statm, err := os.ReadFile(proc + "statm"); err == nil {
		if fields := strings.Fields(string(statm)); len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64)
			memory = pages * int64(os.Getpagesize())
		}
	}
	if line, err := os.ReadFile(proc + "cmdline"); err == nil && bytes.Contains(line, []byte("\x00eval\x00")) {
		evaluating = 1
	}
	tasks, _ := filepath.Glob(proc + "task/*/children")
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for child := range strings.FieldsSeq(string(children)) {
			number, _ := strconv.Atoi(child)
			m, e := look(number)
			memory, evaluating = memory+m, evaluating+e
		}
	}
	return memory, evaluating
}
