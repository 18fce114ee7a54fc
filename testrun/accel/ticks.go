package accel

import (
	"time"

	"golang.org/x/sys/unix"
)

// TicksPerSecond measures how fast this host's time stamp counter runs, to about one
// part in ten thousand; 0 where there is none. An emulated guest's counter is the
// host's (QEMU's cpu_get_host_ticks): a guest that has found out at its boot how fast
// it is, and is moved to where it is faster, has a clock that is too fast.
func TicksPerSecond() int64 {
	begin, from := ticks()
	time.Sleep(2 * time.Millisecond)
	end, to := ticks()
	return int64(float64(end-begin) / float64(to-from) * 1e9)
}

// ticks reads the counter, and a clock that nobody adjusts, in nanoseconds.
func ticks() (count uint64, at int64) {
	least := int64(1 << 62)
	for range 8 { // of which one is not interrupted
		before := rawClock()
		c := timeStampCounter()
		if took := rawClock() - before; took < least {
			least, count, at = took, c, before+took/2
		}
	}
	return count, at
}

func rawClock() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &t) // every Linux has it
	return t.Nano()
}
