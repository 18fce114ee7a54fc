//go:build !amd64

package accel

// timeStampCounter does not count: emulated x86 guests have another clock here.
func timeStampCounter() uint64 { return 0 }
