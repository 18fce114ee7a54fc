package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// processes are a driver's: the driver itself and all that it has started,
// except the machines.
type processes []int

// driverProcesses finds those of the driver with that process id. A process whose
// command line has one of the words is a machine.
func driverProcesses(driver int, machineWords ...string) (processes, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir)) // the pattern has only numbers
		if fields := statFields(pid); fields != nil {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], pid)
		}
	}
	var found processes
	var add func(pid int)
	add = func(pid int) {
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			return // has ended
		}
		for _, word := range machineWords {
			if bytes.Contains(command, []byte(word)) {
				return
			}
		}
		found = append(found, pid)
		for _, child := range children[pid] {
			add(child)
		}
	}
	add(driver)
	return found, nil
}

// statFields are the fields of /proc/PID/stat from the state on, the third of
// proc(5); nil when the process has ended.
func statFields(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(text[bytes.LastIndexByte(text, ')'):]), " ")
	return strings.Fields(rest)
}

// cpu is the time that the processes have used.
func (p processes) cpu() time.Duration {
	var ticks int64
	for _, pid := range p {
		if fields := statFields(pid); fields != nil {
			user, _ := strconv.ParseInt(fields[11], 10, 64)
			system, _ := strconv.ParseInt(fields[12], 10, 64)
			ticks += user + system
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100
}

// memory is what the processes hold, in bytes: pages that several share count
// in parts.
func (p processes) memory() int64 {
	var sum int64
	for _, pid := range p {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // has ended
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				sum += kib << 10
			}
		}
	}
	return sum
}
