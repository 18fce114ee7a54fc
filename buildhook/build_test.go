package buildhook

import (
	"context"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestTerminate: what does not end is killed, and what has ended is left alone.
func TestTerminate(t *testing.T) {
	for name, want := range map[string][]os.Signal{"ends": {syscall.SIGTERM}, "stays": {syscall.SIGTERM, syscall.SIGKILL}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			signals := make(chan os.Signal, 2)
			ended := terminate(ctx, func(sig os.Signal) { signals <- sig })
			cancel()
			got := []os.Signal{<-signals}
			if name == "ends" {
				ended()
			} else {
				defer ended()
			}
			select {
			case sig := <-signals:
				got = append(got, sig)
			case <-time.After(killAfter + time.Second):
			}
			if !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
}
