package warm_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vm-prebuild/testrun/internal/guesttest"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/warm"
)

// BenchmarkStart measures how long machines take from nothing to the first answer
// of their shell: booted, restored, and eight restored at once until the last of
// them has answered. It reports medians, and how much memory a clone has to itself.
func BenchmarkStart(b *testing.B) {
	for guest := range guesttest.Guests {
		b.Run(guest, func(b *testing.B) {
			l := newLab(b, guest)
			b.Run("cold", func(b *testing.B) { l.measure(b, warm.Off, 1) })
			l.save(b)
			b.Run("warm", func(b *testing.B) { l.measure(b, warm.Require, 1) })
			b.Run("warm8", func(b *testing.B) { l.measure(b, warm.Require, 8) })
		})
	}
}

// measure starts n machines at once, again and again.
func (l *lab) measure(b *testing.B, mode warm.Mode, n int) {
	var took []time.Duration
	var private []int64
	for b.Loop() {
		guests := make([]*machine.Guest, n)
		for i := range guests {
			guests[i], _ = l.machine(b, warm.Options{Mode: mode})
			if mode == warm.Off {
				guests[i].Starter = nil
			}
		}
		failed := make([]error, n)
		begin := time.Now()
		var wg sync.WaitGroup
		for i, g := range guests {
			wg.Go(func() { _, failed[i] = g.Succeed(b.Context(), []string{"true"}, time.Minute) })
		}
		wg.Wait()
		took = append(took, time.Since(begin))
		must(b, errors.Join(failed...))
		for _, g := range guests {
			private = append(private, privateMemory(b, g))
			must(b, g.Machine.Release())
		}
	}
	slices.Sort(took)
	slices.Sort(private)
	b.ReportMetric(took[len(took)/2].Seconds(), "s/start")
	b.ReportMetric(float64(private[len(private)/2])/(1<<20), "private-MiB")
}

// privateMemory is what nobody shares with a machine's process, in bytes.
func privateMemory(b *testing.B, g *machine.Guest) (sum int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", g.Machine.(machine.HasProcess).PID()))
	must(b, err)
	for line := range strings.Lines(string(text)) {
		var kib int64
		if name, rest, _ := strings.Cut(line, ":"); name == "Private_Dirty" {
			_, err := fmt.Sscan(rest, &kib)
			must(b, err)
			sum += kib << 10
		}
	}
	return sum
}
