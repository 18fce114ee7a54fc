package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
)

// HumanCommand runs a line of QEMU's human monitor and returns what it printed.
// Mistakes in the line are printed, too, and are no error.
func (m *Monitor) HumanCommand(ctx context.Context, line string) (string, error) {
	const command = "human-monitor-command"
	value, err := m.Execute(ctx, command, map[string]string{"command-line": line})
	if err != nil {
		return "", err
	}
	var out string
	if err := json.Unmarshal(value, &out); err != nil {
		return "", fmt.Errorf("qmp command %s: decode reply: %w", command, err)
	}
	return out, nil
}

// QueryStatus returns the machine's run state: "running", "paused",
// "prelaunch", "shutdown", "guest-panicked" and so on, as in QEMU's RunState.
func (m *Monitor) QueryStatus(ctx context.Context) (string, error) {
	value, err := m.Execute(ctx, "query-status", nil)
	if err != nil {
		return "", err
	}
	var out struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(value, &out); err != nil {
		return "", fmt.Errorf("qmp command query-status: decode reply: %w", err)
	}
	return out.Status, nil
}

// Screendump has QEMU write a picture of the first display to the file filename,
// which QEMU opens relative to its own working directory. format is "ppm" or,
// from QEMU 7.1 on and if it was built with libpng, "png"; empty means ppm in
// every version.
func (m *Monitor) Screendump(ctx context.Context, filename, format string) error {
	_, err := m.Execute(ctx, "screendump", struct {
		Filename string `json:"filename"`
		Format   string `json:"format,omitempty"`
	}{filename, format})
	return err
}

// SetLink plugs in (up) or pulls the cable of the network device or netdev name.
func (m *Monitor) SetLink(ctx context.Context, name string, up bool) error {
	_, err := m.Execute(ctx, "set_link", struct {
		Name string `json:"name"`
		Up   bool   `json:"up"`
	}{name, up})
	return err
}

// Quit has QEMU exit at once, without telling the guest. That the connection
// closes before QEMU replies, or has closed before, is a success, too.
func (m *Monitor) Quit(ctx context.Context) error {
	_, err := m.Execute(ctx, "quit", nil)
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}
