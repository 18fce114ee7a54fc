package qemu

import (
	"context"
	"errors"
	"testing"
	"time"
)

// QEMU is never given more keys than it will have pressed soon.
func TestKeyQueue(t *testing.T) {
	var q keyQueue
	begin := time.Now()
	const chords = 40
	for range chords {
		if err := q.wait(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
	}
	all := chords * 2 * 2 * keyPause
	if took := time.Since(begin); took < all-keyBacklog-4*keyPause {
		t.Errorf("%d chords were given to QEMU within %v, and take it %v", chords, took, all)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, cause)
	defer cancel()
	err := error(nil)
	for range 100 {
		if err = q.wait(ctx, 2); err != nil {
			break
		}
	}
	if !errors.Is(err, cause) {
		t.Error(err)
	}
}
