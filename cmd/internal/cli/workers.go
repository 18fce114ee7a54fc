package cli

import "runtime"

// Workers is what a flag --jobs says about how many things to do at once: n, or
// one for each CPU if n is 0.
//
// It also makes the process ready for workers that are in system calls most of
// the time. While all of Go's processors are in system calls, its monitor looks
// every 20 µs for one to take away, which costs up to a tenth of all CPU time;
// as long as there are idle ones it leaves them alone.
func Workers(n int) (int, error) {
	if n < 0 {
		return 0, Usagef("--jobs must not be negative")
	}
	cpus := runtime.GOMAXPROCS(0)
	if n == 0 {
		n = cpus
	}
	runtime.GOMAXPROCS(cpus + n)
	return n, nil
}
