package machine

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// QMP speaks the QEMU Machine Protocol.
type QMP interface {
	// QMP executes a command and returns its result. args is an object; nil
	// and {} stand for no arguments.
	QMP(ctx context.Context, command string, args json.RawMessage) (json.RawMessage, error)

	// NextQMPEvent takes the oldest event since the machine's start that was
	// not taken yet, and waits for one if need be.
	NextQMPEvent(ctx context.Context) (QMPEvent, error)
}

// QMPEvent is what QEMU reports unasked, as it is on the wire.
type QMPEvent struct {
	Event     string         `json:"event"`
	Data      map[string]any `json:"data,omitempty"`
	Timestamp QMPTimestamp   `json:"timestamp"`
}

// QMPTimestamp is a time on the host's clock, from 1970 on.
type QMPTimestamp struct {
	Seconds      int64 `json:"seconds"`
	Microseconds int64 `json:"microseconds"`
}

// QMPSend executes a QMP command.
func (g *Guest) QMPSend(ctx context.Context, command string, args json.RawMessage) (json.RawMessage, error) {
	q, err := capability[QMP](g.Machine, "speak QMP")
	if err != nil {
		return nil, err
	}
	return q.QMP(ctx, command, args)
}

// QMPNextEvent takes the next QMP event; nil when there is none within
// timeout.
func (g *Guest) QMPNextEvent(ctx context.Context, timeout time.Duration) (*QMPEvent, error) {
	q, err := capability[QMP](g.Machine, "speak QMP")
	if err != nil {
		return nil, err
	}
	errLate := errors.New("no event")
	// A time-out of 0 still takes what is there.
	ctx, cancel := context.WithTimeoutCause(ctx, max(timeout, time.Millisecond), errLate)
	defer cancel()
	e, err := q.NextQMPEvent(ctx)
	switch {
	case errors.Is(err, errLate):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &e, nil
}

// PortForwarder has connections to a TCP port of the host reach one of the
// guest.
type PortForwarder interface {
	ForwardPort(ctx context.Context, hostPort, guestPort int) error
}

// ForwardPort forwards a TCP port of the host to one of the guest.
func (g *Guest) ForwardPort(ctx context.Context, hostPort, guestPort int) error {
	f, err := capability[PortForwarder](g.Machine, "forward ports")
	if err != nil {
		return err
	}
	return f.ForwardPort(ctx, hostPort, guestPort)
}
