package buildhook

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"vm-prebuild/buildhook/admission"
)

// limit is the budget, and what is done with tests that need more.
type limit struct {
	budget admission.Budget
	// alone: a test with more cores than there are runs, alone. Nobody has said how
	// many there may be, and virtual cores can share real ones.
	alone bool
}

// defaultShare is the part of the machine's memory that tests may have, in percent.
const defaultShare = 80

func limitOf(b Budget) limit {
	l := limit{budget: admission.Budget{MemoryMiB: b.MemoryMiB, Cores: b.Cores}}
	if b.MemoryMiB == 0 {
		l.budget.MemoryMiB = memTotalMiB() * defaultShare / 100
	}
	if b.Cores == 0 {
		l.budget.Cores, l.alone = runtime.NumCPU(), true
	}
	return l
}

// clamp is what a test has to wait for, or an error if it never fits.
func (l limit) clamp(d admission.Demand) (admission.Demand, error) {
	if l.alone {
		d.Cores = min(d.Cores, l.budget.Cores)
	}
	if d.MemoryMiB > l.budget.MemoryMiB {
		return d, fmt.Errorf("its %d machines have %d MiB of memory together, more than the %d MiB that tests may have\nhint: --memory sets that",
			d.Machines, d.MemoryMiB, l.budget.MemoryMiB)
	}
	if d.Cores > l.budget.Cores {
		return d, fmt.Errorf("its %d machines have %d cores together, more than the %d that tests may have\nhint: --cores sets that",
			d.Machines, d.Cores, l.budget.Cores)
	}
	return d, nil
}

// memTotalMiB is the memory of this machine; 0 if the kernel does not say.
func memTotalMiB() int {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			kiB, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(rest, "kB")))
			if err == nil {
				return kiB / 1024
			}
		}
	}
	return 0
}
