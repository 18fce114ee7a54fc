package qmp_test

import (
	"context"
	"testing"

	"vm-prebuild/testrun/qmp"
)

func TestCommandsOnTheWire(t *testing.T) {
	tests := []struct {
		name               string
		call               func(context.Context, *qmp.Monitor) (string, error)
		execute, arguments string
		reply, want        string
	}{
		{
			name: "human command",
			call: func(ctx context.Context, m *qmp.Monitor) (string, error) {
				return m.HumanCommand(ctx, "info version")
			},
			execute: "human-monitor-command", arguments: `{"command-line":"info version"}`,
			reply: `"7.2.22\r\n"`, want: "7.2.22\r\n",
		},
		{
			name:    "status",
			call:    func(ctx context.Context, m *qmp.Monitor) (string, error) { return m.QueryStatus(ctx) },
			execute: "query-status",
			reply:   `{"status": "prelaunch", "singlestep": false, "running": false}`, want: "prelaunch",
		},
		{
			name: "screendump, default format",
			call: func(ctx context.Context, m *qmp.Monitor) (string, error) {
				return "", m.Screendump(ctx, "s.ppm", "")
			},
			execute: "screendump", arguments: `{"filename":"s.ppm"}`, reply: `{}`,
		},
		{
			name: "screendump, png",
			call: func(ctx context.Context, m *qmp.Monitor) (string, error) {
				return "", m.Screendump(ctx, "s.png", "png")
			},
			execute: "screendump", arguments: `{"filename":"s.png","format":"png"}`, reply: `{}`,
		},
		{
			name:    "link",
			call:    func(ctx context.Context, m *qmp.Monitor) (string, error) { return "", m.SetLink(ctx, "n0", false) },
			execute: "set_link", arguments: `{"name":"n0","up":false}`, reply: `{}`,
		},
		{
			name:    "quit",
			call:    func(ctx context.Context, m *qmp.Monitor) (string, error) { return "", m.Quit(ctx) },
			execute: "quit", reply: `{}`,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m, _ := newMonitor(t, func(p *peer) {
				c := p.command()
				if c.Execute != test.execute || string(c.Arguments) != test.arguments {
					t.Errorf("the peer got %s %s, want %s %s", c.Execute, c.Arguments, test.execute, test.arguments)
				}
				p.reply(c.ID, test.reply)
			})
			got, err := test.call(deadline(t), m)
			if err != nil || got != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestUnexpectedReplies(t *testing.T) {
	m, _ := newMonitor(t, func(p *peer) {
		for c := p.command(); c.Execute != ""; c = p.command() {
			p.reply(c.ID, `[]`)
		}
	})
	if out, err := m.HumanCommand(deadline(t), "help"); err == nil {
		t.Errorf("human command gave %q", out)
	}
	if out, err := m.QueryStatus(deadline(t)); err == nil {
		t.Errorf("status gave %q", out)
	}
}

func TestQuitWithoutReply(t *testing.T) {
	m, _ := newMonitor(t, func(p *peer) {
		p.command()
		_ = p.Close()
	})
	for range 2 {
		if err := m.Quit(deadline(t)); err != nil {
			t.Error(err)
		}
	}
}
