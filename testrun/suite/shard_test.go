package suite

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSplit(t *testing.T) {
	of := func(seconds ...int) Durations {
		d := Durations{}
		for i, s := range seconds {
			if s >= 0 {
				d[string(rune('a'+i))] = time.Duration(s) * time.Second
			}
		}
		return d
	}
	for _, tt := range []struct {
		name, tests string
		durations   Durations
		n           int
		want        string // "seconds: tests" of each shard
	}{
		{"longest first", "a b c d e", of(7, 6, 5, 4, 3), 2, "14: a d e; 11: b c"},
		{"median of the others", "a b c d", of(10, 2, 4, -1), 2, "10: a; 10: b c d"},
		{"an even number of others", "a b c", of(1, 4, -1), 3, "4: b; 2.5: c; 1: a"},
		{"nothing known", "a b c d e", nil, 2, "0: a c e; 0: b d"},
		{"no time at all", "a b c d", of(0, 0, 0, 0), 2, "0: a c; 0: b d"},
		{"more shards than tests", "a b", of(1, 2), 3, "2: b; 1: a; 0: "},
		{"durations of others", "a", Durations{"z": time.Hour}, 1, "0: a"},
	} {
		names := strings.Fields(tt.tests)
		for range 10 { // in whatever order
			rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
			var got []string
			for i, s := range Split(names, tt.durations, tt.n) {
				if s.Number != i+1 || s.Of != tt.n {
					t.Errorf("%s: shard %d is number %d of %d", tt.name, i, s.Number, s.Of)
				}
				got = append(got, fmt.Sprintf("%v: %s", s.Seconds, strings.Join(s.Tests, " ")))
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, "; ")); diff != "" {
				t.Errorf("%s:\n%s", tt.name, diff)
			}
		}
	}
}

// No shard gets a test while another has less to do, which bounds the slowest
// one: by the mean and the part of the longest test that cannot be shared.
func TestSplitIsBalanced(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		durations := Durations{}
		var names []string
		var sum, longest float64
		for i := range 1 + random.IntN(100) {
			name, seconds := fmt.Sprint("vm-", i), 1+random.ExpFloat64()*60
			names, durations[name] = append(names, name), time.Duration(seconds*float64(time.Second))
			sum, longest = sum+seconds, max(longest, seconds)
		}
		n := 1 + random.IntN(10)
		var all []string
		var slowest float64
		for _, s := range Split(names, durations, n) {
			all, slowest = append(all, s.Tests...), max(slowest, s.Seconds)
		}
		slices.Sort(all)
		slices.Sort(names)
		if !slices.Equal(all, names) {
			t.Fatalf("tests lost or doubled: %q", all)
		}
		const rounding = 1e-6
		if bound := sum/float64(n) + longest*(1-1/float64(n)); slowest > bound+rounding {
			t.Errorf("%d tests, %d shards: the slowest takes %.1f s, bound %.1f s", len(names), n, slowest, bound)
		}
	}
}

func TestParseShard(t *testing.T) {
	if number, of, err := ParseShard("2/5"); number != 2 || of != 5 || err != nil {
		t.Errorf("%d of %d, %v", number, of, err)
	}
	for text, want := range map[string]string{
		"":         "is no shard",
		"2":        "is no shard",
		"2/5/7":    "is no shard",
		"a/5":      "is no shard",
		"2/ 5":     "is no shard",
		"0/5":      "there is no shard 0 of 5",
		"-1/5":     "there is no shard -1 of 5",
		"6/5":      "there is no shard 6 of 5",
		"1/999999": "there is no shard 1 of 999999",
	} {
		if _, _, err := ParseShard(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
