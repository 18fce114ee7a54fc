package suite

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// queue decides which test runs next: the first waiting one for which there are
// a free job and enough memory. A test that needs more memory than there is runs
// alone.
type queue struct {
	tests     []Test
	waiting   []int // indices into tests
	running   int
	freeJobs  int
	freeMiB   int
	memoryMiB int
}

func newQueue(tests []Test, jobs, memoryMiB int) *queue {
	q := &queue{tests: tests, freeJobs: jobs, freeMiB: memoryMiB, memoryMiB: memoryMiB}
	for i := range tests {
		q.waiting = append(q.waiting, i)
	}
	return q
}

// next takes a test that can start now.
func (q *queue) next() (test int, ok bool) {
	if q.freeJobs == 0 {
		return 0, false
	}
	for at, i := range q.waiting {
		if q.tests[i].MemoryMiB() <= q.freeMiB || q.running == 0 {
			q.waiting = slices.Delete(q.waiting, at, at+1)
			q.running++
			q.freeJobs--
			q.freeMiB -= q.tests[i].MemoryMiB()
			return i, true
		}
	}
	return 0, false
}

// done gives back what a test took.
func (q *queue) done(test int) {
	q.running--
	q.freeJobs++
	q.freeMiB += q.tests[test].MemoryMiB()
}

// defaultJobs keeps the virtual cores within the processor's. GOMAXPROCS knows
// the limits of a container, too.
func defaultJobs(tests []Test) int {
	largest := 1
	for _, t := range tests {
		largest = max(largest, t.Cores())
	}
	return max(runtime.GOMAXPROCS(0)/largest, 1)
}

// memAvailableMiB asks the kernel how much memory can be used without swapping.
func memAvailableMiB() (int, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("finding out the available memory: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemAvailable:"); ok {
			kiB, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(rest, "kB")))
			if err != nil {
				return 0, fmt.Errorf("finding out the available memory: %w", err)
			}
			return kiB / 1024, nil
		}
	}
	return 0, errors.New("finding out the available memory: /proc/meminfo has no MemAvailable")
}
