package prebuild

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"vm-prebuild/testrun/suite"
)

// More attributes than a process evaluates, of which some are no tests.
const manyOutputs = `
  many = builtins.listToAttrs (builtins.genList (n: {
    name = "vm-${toString n}";
    value = builtins.trace "evaluated ${toString n}" (drv "vm-test-run-${toString n}"
      (if n == 7 then { } else { requiredSystemFeatures = [ "nixos-test" ]; }));
  }) 30);
  broken = many // { vm-21 = throw "out of order"; };
  quoted."a\"b${"$"}{c}" = many.vm-1;
  empty = { };`

func TestTests(t *testing.T) {
	needNix(t)
	url := flake(t, "inherit (rec {"+manyOutputs+"}) many broken quoted empty;")
	for _, jobs := range []int{0, 1, 3} {
		var log strings.Builder
		nix := Nix{Log: &log, Jobs: jobs}
		tests, err := nix.Tests(t.Context(), url+"#many")
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, test := range tests {
			got = append(got, test.Name)
		}
		for n := range 30 {
			if times := strings.Count(log.String(), fmt.Sprintf("trace: evaluated %d\n", n)); times != 1 {
				t.Errorf("%d jobs: attribute %d was evaluated %d times", jobs, n, times)
			}
			if n != 7 {
				want = append(want, fmt.Sprint("vm-", n))
			}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%d jobs: got %q, want %q", jobs, got, want)
		}
		if strings.Contains(log.String(), "vm-prebuild: attribute") {
			t.Errorf("our own traces are in the log:\n%s", &log)
		}
	}

	var nix Nix
	_, err := nix.Tests(t.Context(), url+"#broken")
	if want := "evaluating " + url + "#broken: vm-21: nix eval: out of order"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	tests, err := nix.Tests(t.Context(), url+"#quoted")
	if err != nil || len(tests) != 1 || tests[0].Name != `a"b${c}` {
		t.Errorf("%+v, %v", tests, err)
	}
	if _, err := nix.Tests(t.Context(), url+"#empty"); !errors.Is(err, ErrNoTests) {
		t.Errorf("an empty set: %v", err)
	}
}

func TestGitHubMatrix(t *testing.T) {
	tests := []PlannedTest{{Name: "vm-a"}, {Name: "vm-b"}, {Name: "vm-c"}}
	matrix, err := NewGitHubMatrix(Split(tests, suite.Durations{"vm-b": 2.5e9, "vm-a": 2e9, "vm-c": 1e9}, 2))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(matrix)
	want := `{"include":[{"shard":1,"shards":2,"seconds":2.5,"tests":"vm-b"},{"shard":2,"shards":2,"seconds":3,"tests":"vm-a vm-c"}]}`
	if err != nil || string(text) != want {
		t.Errorf("got %s, %v, want %s", text, err, want)
	}
	// No shard is empty: GitHub would run a job for it, with all tests.
	if shards := Split(tests, nil, 7); len(shards) != 3 || shards[2].Of != 3 || len(shards[2].Tests) != 1 {
		t.Errorf("%+v", shards)
	}
	if _, err := NewGitHubMatrix(Split([]PlannedTest{{Name: "vm; rm -rf"}}, nil, 1)); err == nil || !strings.Contains(err.Error(), `test name "vm; rm -rf"`) {
		t.Errorf("a name for a shell: %v", err)
	}
	if _, err := NewGitHubMatrix(make([]suite.Shard, 257)); err == nil || !strings.Contains(err.Error(), "at most 256 jobs") {
		t.Errorf("too many jobs: %v", err)
	}
}
