package accel

import (
	"runtime"
	"testing"
)

func TestTicksPerSecond(t *testing.T) {
	first := TicksPerSecond()
	if (first == 0) != (runtime.GOARCH != "amd64") {
		t.Errorf("%d", first)
	}
	for range 20 {
		if again := TicksPerSecond(); again < first-first/2000 || again > first+first/2000 {
			t.Errorf("first %d, then %d", first, again)
		}
	}
	t.Log(first)
}
