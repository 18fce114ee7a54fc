package suite

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// queue decides which test runs next: the first waiting one for which there are
// a free job, enough cores and enough memory. A test that needs more than there
// is runs alone.
type queue struct {
	tests     []Test
	waiting   []int // indices into tests
	running   int
	freeJobs  int
	freeCores int
	freeMiB   int
}

func newQueue(tests []Test, jobs, cores, memoryMiB int) *queue {
	q := &queue{tests: tests, freeJobs: jobs, freeCores: cores, freeMiB: memoryMiB}
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
		fits := q.tests[i].MemoryMiB() <= q.freeMiB && q.tests[i].Cores() <= q.freeCores
		if fits || q.running == 0 {
			q.waiting = slices.Delete(q.waiting, at, at+1)
			q.running++
			q.freeJobs--
			q.freeCores -= q.tests[i].Cores()
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
	q.freeCores += q.tests[test].Cores()
	q.freeMiB += q.tests[test].MemoryMiB()
}

// limits returns how many tests and how many of their cores may run at once. A
// number of jobs that the user chose is not second-guessed; without one, the
// machines' cores stay within the processor's. (GOMAXPROCS knows the limits of a
// container, too.)
func limits(jobs, tests int) (maxJobs, cores int) {
	if jobs > 0 {
		return jobs, math.MaxInt
	}
	return tests, runtime.GOMAXPROCS(0)
}

// AvailableMemoryMiB asks the kernel how much memory can be used without swapping.
func AvailableMemoryMiB() (int, error) {
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
