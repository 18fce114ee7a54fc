package prebuild

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"vm-prebuild/testrun/suite"
)

// findTests is applied to the installable's value: a test, or a set with tests
// among other things. Tests made by nixpkgs' runTest have a driver; a derivation
// that runs a test in another way requires the feature nixos-test.
//
// It is a function from the numbers of the first attribute and of the one after
// the last, by the order of their names, to what these are. Each is announced
// before it is looked at.
const findTests = `from: to: value:
let
  isDerivation = v: (v.type or null) == "derivation";
  isTest = v: isDerivation v
    && (v ? driver || builtins.elem "nixos-test" (v.requiredSystemFeatures or [ ]));
  path = builtins.unsafeDiscardStringContext;
  describe = name: v: if !isTest v then null else {
    inherit name;
    derivation = path v.drvPath;
    target = path (v.driver.drvPath or v.drvPath);
  };
  names = builtins.attrNames value;
  at = i: let name = builtins.elemAt names i; in
    builtins.trace "vm-prebuild: attribute ${toString i}" (describe name value.${name});
in
if isDerivation value then [ (describe value.name value) ]
else builtins.genList (i: at (from + i)) (to - from)`

// listAttributes finds out what there is to evaluate, and evaluates none of it:
// null for a derivation.
const listAttributes = `value: if (value.type or null) == "derivation" then null else builtins.attrNames value`

// A process evaluates batchSize attributes before another one takes over, which
// gives back the memory of their machines. Loading the flake again costs about
// as much as one test.
const batchSize = 12

// announcement matches what nix writes to stderr when it comes to an attribute.
var announcement = regexp.MustCompile(`^trace: vm-prebuild: attribute (\d+)$`)

// busy matches what nix says when it waits for another process that writes to the
// store's database: ours, most of the time.
var busy = regexp.MustCompile(`^warning: (error: )?SQLite database .* is busy$`)

// tellEvery is how often it is said how far the evaluation has come, at most.
const tellEvery = 2 * time.Second

// evaluationMiB is the memory that is left to each evaluating process: what a
// batch of nixpkgs' tests takes.
const evaluationMiB = 2048

// Tests evaluates an installable, such as ".#checks.x86_64-linux", which is a
// test or a set with tests, and returns the tests, sorted by name. Each is
// evaluated once, several at a time. Nothing is built or looked for in the store:
// the tests' lists of what is missing are empty.
func (n *Nix) Tests(ctx context.Context, installable string) ([]PlannedTest, error) {
	tests, err := n.tests(ctx, installable)
	if err != nil {
		return nil, fmt.Errorf("evaluating %s: %w", installable, err)
	}
	if len(tests) == 0 {
		return nil, fmt.Errorf("%s: %w", installable, ErrNoTests)
	}
	return tests, nil
}

func (n *Nix) tests(ctx context.Context, installable string) ([]PlannedTest, error) {
	n.say("evaluating %s", installable)
	var attributes []string
	// What nix says of the flake it says in every process: once is enough.
	said := map[string]bool{}
	log := n.evaluationLog(func(line string) bool { said[line] = true; return true })
	if err := n.evaluate(ctx, log, installable, listAttributes, &attributes); err != nil {
		return nil, err
	}
	if attributes == nil {
		attributes = []string{""} // the installable is the one attribute, so to speak
	}
	var mu sync.Mutex // of what follows, and of n.Log
	var tests []PlannedTest
	done, told := 0, time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(n.evaluations())
	for from := 0; from < len(attributes); from += batchSize {
		to := min(from+batchSize, len(attributes))
		group.Go(func() error {
			at := -1 // the attribute that is being evaluated
			log := n.evaluationLog(func(line string) bool {
				if match := announcement.FindStringSubmatch(line); match != nil {
					at, _ = strconv.Atoi(match[1])
					return false
				}
				return !said[line] && !busy.MatchString(line)
			})
			log.mu = &mu
			var found []*PlannedTest
			err := n.evaluate(ctx, log, installable, fmt.Sprintf("(%s) %d %d", findTests, from, to), &found)
			if err != nil && at >= from && at < to {
				return fmt.Errorf("%s: %w", attributes[at], err)
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			done += to - from
			if time.Since(told) > tellEvery && done < len(attributes) {
				told = time.Now()
				n.say("evaluated %d of %d", done, len(attributes))
			}
			for _, test := range found {
				if test != nil {
					tests = append(tests, *test)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i := range tests {
		tests[i].Name = strings.TrimPrefix(tests[i].Name, "vm-test-run-")
	}
	slices.SortFunc(tests, func(a, b PlannedTest) int { return strings.Compare(a.Name, b.Name) })
	return tests, nil
}

// evaluate applies a function to the installable and decodes what it returns.
func (n *Nix) evaluate(ctx context.Context, log *evaluationLog, installable, function string, result any) error {
	// The evaluation cache knows nothing of what functions return, and processes
	// that fill it at the same time wait for each other.
	args := append([]string{"--option", "eval-cache", "false", "--json", "--apply", function}, n.Args...)
	stdout, _, err := n.run(ctx, log, "eval", append(args, installable)...)
	log.flush()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(stdout, result); err != nil {
		return fmt.Errorf("reading what nix eval printed: %w", err)
	}
	return nil
}

// evaluations is how many processes evaluate at once.
func (n *Nix) evaluations() int {
	if n.Jobs > 0 {
		return n.Jobs
	}
	jobs := runtime.GOMAXPROCS(0)
	if available, err := suite.AvailableMemoryMiB(); err == nil {
		jobs = min(jobs, available/evaluationMiB)
	}
	return max(jobs, 1)
}

// evaluationLog passes on the lines of nix's stderr that keep says yes to.
type evaluationLog struct {
	keep func(line string) bool
	out  io.Writer   // may be nil
	mu   *sync.Mutex // of out, if not nil
	rest []byte      // of a line that has not ended
}

func (n *Nix) evaluationLog(keep func(line string) bool) *evaluationLog {
	return &evaluationLog{keep: keep, out: n.Log}
}

func (l *evaluationLog) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, ended := bytes.Cut(l.rest, []byte("\n"))
		if !ended {
			return len(p), nil
		}
		l.rest = rest
		l.pass(string(line))
	}
}

// flush passes on a last line without an end.
func (l *evaluationLog) flush() {
	if len(l.rest) > 0 {
		l.pass(string(l.rest))
		l.rest = nil
	}
}

func (l *evaluationLog) pass(line string) {
	if !l.keep(line) || l.out == nil {
		return
	}
	if l.mu != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
	}
	fmt.Fprintln(l.out, line)
}
