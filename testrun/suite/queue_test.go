package suite

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func testOf(memoryMiB, cores int) Test {
	return Test{Machines: []Machine{{Name: "m", MemoryMiB: memoryMiB, Cores: cores}}}
}

// start takes what can start now.
func start(q *queue) (started []int) {
	for {
		i, ok := q.next()
		if !ok {
			return started
		}
		started = append(started, i)
	}
}

func TestQueue(t *testing.T) {
	tests := []Test{testOf(600, 1), testOf(600, 1), testOf(300, 1), testOf(5000, 1), testOf(100, 1)}
	q := newQueue(tests, 2, 100, 1000)
	steps := []struct {
		done int
		want []int
	}{
		{-1, []int{0, 2}}, // 1 has no memory, 2 has, no third job for 4
		{2, []int{4}},     // 1 still has none
		{4, nil},
		{0, []int{1}},
		{1, []int{3}}, // larger than the budget: alone
		{3, nil},
	}
	for i, s := range steps {
		if s.done >= 0 {
			q.done(s.done)
		}
		if diff := cmp.Diff(s.want, start(q)); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
	if len(q.waiting) != 0 || q.running != 0 || q.freeJobs != 2 || q.freeMiB != 1000 {
		t.Errorf("left: %+v", q)
	}
}

func TestQueueOfCores(t *testing.T) {
	q := newQueue([]Test{testOf(1, 1), testOf(1, 8), testOf(1, 1), testOf(1, 1)}, 4, 2, 1000)
	// The second test is larger than the processor: it runs alone, last.
	for i, want := range [][]int{{0, 2}, {3}, nil, {1}} {
		if i > 0 {
			q.done([]int{0, 2, 3}[i-1])
		}
		if diff := cmp.Diff(want, start(q)); diff != "" {
			t.Errorf("step %d: %s", i, diff)
		}
	}
}

func TestLimits(t *testing.T) {
	if jobs, cores := limits(3, 10); jobs != 3 || cores < 1<<30 {
		t.Errorf("chosen: %d jobs, %d cores", jobs, cores)
	}
	if jobs, cores := limits(0, 10); jobs != 10 || cores < 1 {
		t.Errorf("by default: %d jobs, %d cores", jobs, cores)
	}
}

func TestMemAvailable(t *testing.T) {
	if mib, err := AvailableMemoryMiB(); err != nil || mib < 16 {
		t.Errorf("%d MiB, %v", mib, err)
	}
}
