package buildhook

import (
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
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

// defaultShare is the part of the memory there is that tests may have, in percent.
const defaultShare = 80

// limitOf is the limit by what the machine below the directory root, / but in tests,
// has for this process.
func limitOf(b Budget, root string) (limit, error) {
	l := limit{budget: admission.Budget{MemoryMiB: b.MemoryMiB, Cores: b.Cores}}
	if b.MemoryMiB == 0 {
		memory, err := memoryMiB(root)
		if err != nil {
			return l, fmt.Errorf("find out how much memory tests may have: %w\nhint: --memory sets that", err)
		}
		l.budget.MemoryMiB = memory * defaultShare / 100
	}
	if b.Cores == 0 {
		l.budget.Cores, l.alone = min(runtime.NumCPU(), cgroupCores(root)), true
	}
	return l, nil
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

// memoryMiB is the memory of this machine, or what its control groups leave to this
// process if that is less.
func memoryMiB(root string) (int, error) {
	file := filepath.Join(root, "proc/meminfo")
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	total := 0
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kiB, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			if err != nil {
				return 0, fmt.Errorf("%s: %w", file, err)
			}
			total = kiB / 1024
		}
	}
	for _, value := range cgroupValues(root, "memory.max") {
		if bytes, err := strconv.ParseInt(value, 10, 64); err == nil { // it can be "max"
			total = min(total, int(bytes>>20))
		}
	}
	if total*defaultShare/100 == 0 {
		return 0, fmt.Errorf("by %s and memory.max of this control group and its parents, there are %d MiB", file, total)
	}
	return total, nil
}

// cgroupCores is how many processors control groups leave to this process.
func cgroupCores(root string) int {
	cores := math.MaxInt
	for _, value := range cgroupValues(root, "cpu.max") {
		quota, period, _ := strings.Cut(value, " ")
		q, err := strconv.Atoi(quota) // it can be "max"
		p, periodErr := strconv.Atoi(period)
		if err == nil && periodErr == nil && p > 0 {
			cores = min(cores, max((q+p-1)/p, 1))
		}
	}
	return cores
}

// cgroupValues are the contents of a file of the control group (version 2) of this
// process, and of all its parents. Where there is none, there is no limit.
func cgroupValues(root, name string) (values []string) {
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		group, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::/")
		if !ok {
			continue
		}
		for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
			if value, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup", dir, name)); err == nil {
				values = append(values, strings.TrimSpace(string(value)))
			}
			if dir == "/" {
				break
			}
		}
	}
	return values
}
