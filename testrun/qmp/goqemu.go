package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	goqmp "github.com/digitalocean/go-qemu/qmp"
)

// Timeout is how long Connect and Run wait. go-qemu's interface gives them no
// context.
const Timeout = 30 * time.Second

var _ goqmp.Monitor = (*Monitor)(nil)

// Connect is Handshake for go-qemu, with a time limit of [Timeout].
func (m *Monitor) Connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	return m.Handshake(ctx)
}

// Disconnect is Close for go-qemu.
func (m *Monitor) Disconnect() error { return m.Close() }

// Events is Subscribe for go-qemu.
func (m *Monitor) Events(ctx context.Context) (<-chan Event, error) {
	return m.Subscribe(ctx), nil
}

// Run is Execute for go-qemu, with a time limit of [Timeout]: it takes a whole
// command and returns the whole reply, with the id that the command had, if
// any. An error reply is returned as an [*Error].
func (m *Monitor) Run(command []byte) ([]byte, error) {
	var c struct {
		Execute   string          `json:"execute"`
		Arguments json.RawMessage `json:"arguments"`
		ID        json.RawMessage `json:"id"`
	}
	if err := json.Unmarshal(command, &c); err != nil {
		return nil, fmt.Errorf("qmp: decode command: %w", err)
	}
	if c.Execute == "" {
		return nil, errors.New(`qmp: command without "execute"`)
	}
	var args any
	if c.Arguments != nil {
		args = c.Arguments
	}
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	value, err := m.Execute(ctx, c.Execute, args)
	if err != nil {
		return nil, err
	}
	// The id that went over the wire is a number of the monitor's. go-qemu's
	// decoders expect a string, or none.
	return json.Marshal(struct {
		Return json.RawMessage `json:"return"`
		ID     json.RawMessage `json:"id,omitempty"`
	}{value, c.ID})
}
