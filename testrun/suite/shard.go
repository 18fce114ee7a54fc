package suite

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Shard is a part of a suite, for a machine of its own.
type Shard struct {
	Number  int      `json:"shard"`   // from 1
	Of      int      `json:"shards"`  // how many there are
	Seconds float64  `json:"seconds"` // how long its tests take one after the other; 0 when no test's duration is known
	Tests   []string `json:"tests"`   // sorted
}

// MaxShards bounds how many shards a suite can have.
const MaxShards = 10_000

// Split distributes the named tests over n shards that take about as long as
// each other: the longest test first, each to the shard with the least to do so
// far. A test whose duration is not known counts as the median of the others, or
// all count the same. There are exactly n shards, and some are empty if there are
// fewer tests. The same names and durations give the same shards, in whatever
// order.
func Split(names []string, durations Durations, n int) []Shard {
	weights, known := weigh(names, durations)
	longestFirst := slices.Clone(names)
	slices.SortFunc(longestFirst, func(a, b string) int {
		return cmp.Or(cmp.Compare(weights[b], weights[a]), cmp.Compare(a, b))
	})
	shards := make([]Shard, n)
	load := make([]time.Duration, n)
	for _, name := range longestFirst {
		least := 0
		for i := range shards {
			// Tests that take no time at all are spread, too.
			if cmp.Or(cmp.Compare(load[i], load[least]), cmp.Compare(len(shards[i].Tests), len(shards[least].Tests))) < 0 {
				least = i
			}
		}
		load[least] += weights[name]
		shards[least].Tests = append(shards[least].Tests, name)
	}
	for i := range shards {
		s := &shards[i]
		s.Number, s.Of = i+1, n
		s.Tests = append([]string{}, s.Tests...)
		slices.Sort(s.Tests)
		if known {
			s.Seconds = load[i].Seconds()
		}
	}
	return shards
}

// weigh says how long each test is taken to last, and whether that is known of
// any.
func weigh(names []string, durations Durations) (weights map[string]time.Duration, known bool) {
	var sorted []time.Duration
	for _, name := range names {
		if d, ok := durations[name]; ok {
			sorted = append(sorted, d)
		}
	}
	slices.Sort(sorted)
	median := time.Minute // of no consequence: all count the same
	if n := len(sorted); n > 0 {
		median = (sorted[(n-1)/2] + sorted[n/2]) / 2
	}
	weights = make(map[string]time.Duration, len(names))
	for _, name := range names {
		weights[name] = median
		if d, ok := durations[name]; ok {
			weights[name] = d
		}
	}
	return weights, len(sorted) > 0
}

// ParseShard reads "2/5", the second of five shards.
func ParseShard(s string) (number, of int, err error) {
	before, after, _ := strings.Cut(s, "/")
	number, err = strconv.Atoi(before)
	of, ofErr := strconv.Atoi(after)
	if err != nil || ofErr != nil {
		return 0, 0, fmt.Errorf("%q is no shard\nhint: 2/5 is the second of five", s)
	}
	if number < 1 || number > of || of > MaxShards {
		return 0, 0, fmt.Errorf("there is no shard %d of %d\nhint: shards are numbered from 1 to their number, which is at most %d", number, of, MaxShards)
	}
	return number, of, nil
}
