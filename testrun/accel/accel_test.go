package accel

import (
	"context"
	"testing"
	"time"
)

// The answer depends on the machine; that there is one, quickly and with a
// reason, does not.
func TestProbeAnswers(t *testing.T) {
	start := time.Now()
	r := Probe(t.Context())
	if took := time.Since(start); took > probeLimit+time.Second {
		t.Errorf("took %v, limit %v", took, probeLimit)
	}
	if r.KVM == (r.Reason != "") {
		t.Errorf("%+v: a reason belongs to a refusal, and only there", r)
	}
	t.Logf("%+v", r)
}

func TestProbeEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	Probe(ctx)
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v with a context that had ended", took)
	}
}
