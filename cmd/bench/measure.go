package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sample is what one run cost.
type sample struct {
	Wall   time.Duration `json:"wallNs"`
	CPU    time.Duration `json:"cpuNs"`    // user and system time of all processes
	Others time.Duration `json:"othersNs"` // CPU time of all else on the machine meanwhile, the kernel's threads included
	MaxRSS int64         `json:"maxRssBytes"`
	Note   string        `json:"note,omitempty"` // what the run left: a size, say
}

// measure runs cmd and returns what it cost. MaxRSS is that of the largest of
// its processes, and never less than this process's own: that is how Linux
// counts.
func measure(cmd *exec.Cmd) (sample, error) {
	start := time.Now()
	_, err := output(cmd)
	wall := time.Since(start)
	if err != nil {
		return sample{}, err
	}
	state := cmd.ProcessState
	usage := state.SysUsage().(*syscall.Rusage)
	return sample{Wall: wall, CPU: state.UserTime() + state.SystemTime(), MaxRSS: usage.Maxrss << 10}, nil
}

// spread is the median of several figures, and their limits.
type spread struct {
	Median time.Duration `json:"medianNs"`
	Min    time.Duration `json:"minNs"`
	Max    time.Duration `json:"maxNs"`
}

func spreadOf(samples []sample, figure func(sample) time.Duration) spread {
	var all []time.Duration
	for _, s := range samples {
		all = append(all, figure(s))
	}
	slices.Sort(all)
	return spread{Median: (all[(len(all)-1)/2] + all[len(all)/2]) / 2, Min: all[0], Max: all[len(all)-1]}
}

func (s spread) String() string {
	return fmt.Sprintf("%s (%s..%s)", seconds(s.Median), seconds(s.Min), seconds(s.Max))
}

// seconds shows d with three digits that mean something.
func seconds(d time.Duration) string {
	switch s := d.Seconds(); {
	case s < 0.1:
		return fmt.Sprintf("%.4f", s)
	case s < 10:
		return fmt.Sprintf("%.2f", s)
	default:
		return fmt.Sprintf("%.1f", s)
	}
}

// results is what the contenders of a job did.
type results struct {
	samples map[string][]sample
	failed  map[string]error // of those that did not do it
}

// failure says that a contender did not do its job.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// run has the contenders of j take turns, each on a fresh copy of the same file
// system. One that fails takes no further turns.
func (l *lab) run(ctx context.Context, j *job, runs int, say func(format string, args ...any)) (*results, error) {
	golden, failed, err := l.golden(ctx, j)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", j.name, err)
	}
	r := &results{samples: map[string][]sample{}, failed: failed}
	for name, err := range failed {
		say("%s: %s failed: %v\n", j.name, name, err)
	}
	for n := range runs {
		order := slices.Clone(j.contenders)
		if n%2 == 1 {
			slices.Reverse(order)
		}
		for _, c := range order {
			if r.failed[c.name] != nil {
				continue
			}
			s, err := l.turn(ctx, j, c, golden)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if failed, ok := errors.AsType[failure](err); ok {
				r.failed[c.name] = failed
				say("%s: %s failed: %v\n", j.name, c.name, failed)
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", j.name, c.name, err)
			}
			r.samples[c.name] = append(r.samples[c.name], s)
			say("%s: %s: %s s, CPU %s s (others %s s), %d MiB %s\n", j.name, c.name, seconds(s.Wall), seconds(s.CPU), seconds(s.Others), s.MaxRSS>>20, s.Note)
		}
	}
	return r, nil
}

// turn is one run of a contender.
func (l *lab) turn(ctx context.Context, j *job, c contender, golden string) (s sample, err error) {
	w, err := l.fresh(ctx, golden)
	if err != nil {
		return s, err
	}
	// After a signal, too.
	defer func() { err = errors.Join(err, w.discard(context.WithoutCancel(ctx))) }()
	if err := w.settle(ctx, l.pause); err != nil {
		return s, err
	}
	if c.as == builder {
		return w.inSandbox(ctx, j, c)
	}
	cmd := l.shell(ctx, c.script, w.env(j)...)
	if c.as == nobody {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobodyID, Gid: nobodyID}
	}
	before, err := machineCPU()
	if err != nil {
		return s, err
	}
	if s, err = measure(cmd); err != nil {
		return s, failure{err}
	}
	after, err := machineCPU()
	if err != nil {
		return s, err
	}
	s.Others = max(0, after-before-s.CPU)
	check := j.check
	if c.check != "" {
		check = c.check
	}
	if s.Note, err = l.output(ctx, check, w.env(j)...); err != nil {
		return s, failure{fmt.Errorf("did not do the job: %w", err)}
	}
	s.Note = strings.TrimSpace(s.Note)
	return s, nil
}

// nobodyID is a user and group that owns nothing.
const nobodyID = 65534

// machineCPU is how much CPU time all processes and the kernel have used.
func machineCPU() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	// cpu user nice system idle iowait irq softirq, in hundredths of a second.
	var ticks [7]int64
	if _, err := fmt.Sscan(strings.TrimPrefix(string(stat), "cpu"), &ticks[0], &ticks[1], &ticks[2], &ticks[3], &ticks[4], &ticks[5], &ticks[6]); err != nil {
		return 0, fmt.Errorf("/proc/stat: %w", err)
	}
	busy := ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]
	return time.Duration(busy) * 10 * time.Millisecond, nil
}
