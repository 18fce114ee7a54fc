package qmp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"vm-prebuild/testrun/qmp"
)

// What go-qemu's SocketMonitor does wrong, and where it is tested that a Monitor
// does not, with fakes here and with QEMU in qemu_test.go:
//
//   - a reply over 64 KiB ends it: TestReplyOfAnySize, TestQEMU
//   - events that nobody reads hang all calls: TestUnreadEventsHoldNothingUp, TestGoQEMUDomain
//   - the context of Events is ignored: TestSubscriptionEndsWithItsContext
//   - Connect hangs behind another client or on a stopped QEMU: TestNoGreeting,
//     TestSecondClientOfQEMU, TestClientOfAStoppedQEMU
//   - calls know no deadline, and QEMU's end hangs them: TestLateReplyIsDropped,
//     TestPeerThatDoesNotRead, TestStoppedAndKilledQEMU, TestEndOfConnectionWakesEverybody
//   - one command at a time, without ids: TestRepliesInAnyOrder
//   - replies share a buffer: TestRepliesAreNotShared
//   - the class of an error is lost, an end looks like bad JSON: TestErrorKeepsItsClass,
//     TestEndOfConnectionWakesEverybody
//   - events behind the handshake may be lost: TestEventsBehindHandshakeAreKept

func TestReplyOfAnySize(t *testing.T) {
	text := strings.Repeat("x", 4<<20)
	m, _ := newMonitor(t, func(p *peer) {
		p.reply(p.command().ID, `"`+text+`"`)
		p.reply(p.command().ID, `"small"`)
	})
	for _, want := range []string{text, "small"} {
		got, err := m.HumanCommand(deadline(t), "info mem")
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("got a reply of %d bytes, want %d", len(got), len(want))
		}
	}
}

func TestUnreadEventsHoldNothingUp(t *testing.T) {
	const sent, kept = 1000, 256
	m, _ := newMonitor(t, func(p *peer) {
		c := p.command()
		for i := range sent {
			p.send(fmt.Sprintf(`{"event": "E%d"}`, i))
		}
		p.reply(c.ID, `{}`)
		p.reply(p.command().ID, `{}`)
	})
	events, err := m.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := m.Subscribe(t.Context())
	for range 2 {
		if _, err := m.Run([]byte(`{"execute": "query-status"}`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Disconnect(); err != nil {
		t.Fatal(err)
	}
	for _, ch := range []<-chan qmp.Event{events, other} {
		next := sent - kept
		for e := range ch {
			if want := "E" + strconv.Itoa(next); e.Event != want {
				t.Fatalf("got event %s, want %s", e.Event, want)
			}
			next++
		}
		if next != sent {
			t.Errorf("the last event was E%d, want E%d", next-1, sent-1)
		}
	}
}

func TestSubscriptionEndsWithItsContext(t *testing.T) {
	m, p := newMonitor(t, nil)
	kept := m.Subscribe(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	events := m.Subscribe(ctx)
	p.send(`{"event": "ONE", "data": {"n": 1}, "timestamp": {"seconds": 5, "microseconds": 7}}`)
	e := <-events
	if e.Event != "ONE" || e.Data["n"] != 1.0 || e.Timestamp.Seconds != 5 || e.Timestamp.Microseconds != 7 {
		t.Errorf("got %+v", e)
	}
	cancel()
	if e, ok := <-events; ok {
		t.Errorf("got %+v after the end", e)
	}
	p.send(`{"event": "TWO"}`)
	for _, want := range []string{"ONE", "TWO"} {
		if e := <-kept; e.Event != want {
			t.Errorf("the other subscriber got %s, want %s", e.Event, want)
		}
	}
}

// QEMU greets one client at a time. The others wait, as do all when it is
// stopped.
func TestNoGreeting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newMonitor(t, nil)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := m.Handshake(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "\nhint: ") {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("it took %v", d)
		}
		start = time.Now()
		if err := m.Connect(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d != qmp.Timeout {
			t.Errorf("it took %v", d)
		}
	})
}

func TestPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, p := newMonitor(t, nil)
		for range 2 { // the first is taken by the writer, the second is not
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := m.Execute(ctx, "stuck", nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v", err)
			}
		}
		go func() {
			if c := p.command(); c.Execute != "stuck" {
				t.Errorf("the peer got %+v", c)
			}
			c := p.command()
			if c.Execute != "fine" {
				t.Errorf("the peer got %+v", c)
			}
			p.reply(c.ID, `1`)
		}()
		if got, err := m.Execute(t.Context(), "fine", nil); err != nil || string(got) != "1" {
			t.Errorf("got %s, %v", got, err)
		}
	})
}

func TestCloseWhilePeerDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := newMonitor(t, nil)
		result := make(chan error)
		go func() {
			_, err := m.Execute(t.Context(), "stuck", nil)
			result <- err
		}()
		synctest.Wait()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if err := <-result; !errors.Is(err, qmp.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestLateReplyIsDropped(t *testing.T) {
	cause := errors.New("the user pressed ^C")
	ctx, cancel := context.WithCancelCause(t.Context())
	m, _ := newMonitor(t, func(p *peer) {
		first := p.command()
		cancel(cause)
		second := p.command()
		p.reply(first.ID, `"late"`)
		p.reply(second.ID, `"prompt"`)
	})
	if _, err := m.Execute(ctx, "slow", nil); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause of the cancellation", err)
	}
	if _, err := m.Execute(ctx, "never sent", nil); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause of the cancellation", err)
	}
	got, err := m.Execute(deadline(t), "quick", nil)
	if err != nil || string(got) != `"prompt"` {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestRepliesAreNotShared(t *testing.T) {
	m, _ := newMonitor(t, func(p *peer) {
		for c := p.command(); c.Execute != ""; c = p.command() {
			p.reply(c.ID, `"`+strings.Repeat(c.Execute, 100)+`"`)
		}
	})
	var replies [][]byte
	for _, name := range []string{"a", "b", "c"} {
		out, err := m.Run([]byte(`{"execute": "` + name + `"}`))
		if err != nil {
			t.Fatal(err)
		}
		replies = append(replies, out)
	}
	for i, name := range []string{"a", "b", "c"} {
		want := `{"return":"` + strings.Repeat(name, 100) + `"}`
		if string(replies[i]) != want {
			t.Errorf("reply %d is now %s", i, replies[i])
		}
	}
}

func TestErrorKeepsItsClass(t *testing.T) {
	m, _ := newMonitor(t, func(p *peer) {
		for c := p.command(); c.Execute != ""; c = p.command() {
			p.send(fmt.Sprintf(`{"id": %d, "error": {"class": "DeviceNotFound", "desc": "Device 'nope' not found"}}`, c.ID))
		}
	})
	check := func(err error) {
		t.Helper()
		want := qmp.Error{Command: "set_link", Class: "DeviceNotFound", Desc: "Device 'nope' not found"}
		var e *qmp.Error
		if !errors.As(err, &e) || *e != want {
			t.Errorf("got %#v", err)
		}
	}
	check(m.SetLink(deadline(t), "nope", true))
	_, err := m.Run([]byte(`{"execute": "set_link", "arguments": {"name": "nope", "up": true}}`))
	check(err)
}

func TestEventsBehindHandshakeAreKept(t *testing.T) {
	m, _ := newMonitor(t, func(p *peer) {
		p.send(greeting)
		id := p.command().ID
		p.send(fmt.Sprintf(`{"return": {}, "id": %d}`, id), `{"event": "STOP"}`, `{"event": "RESUME"}`)
	})
	if err := m.Connect(); err != nil {
		t.Fatal(err)
	}
	events := m.Subscribe(t.Context())
	for _, want := range []string{"STOP", "RESUME"} {
		if e := <-events; e.Event != want {
			t.Errorf("got event %q, want %q", e.Event, want)
		}
	}
}

func TestRepliesInAnyOrder(t *testing.T) {
	const n = 20
	m, _ := newMonitor(t, func(p *peer) {
		var cs [n]command
		for i := range cs {
			cs[i] = p.command()
		}
		for i := n - 1; i >= 0; i-- {
			p.send(`{"event": "RTC_CHANGE"}`)
			p.reply(cs[i].ID, string(cs[i].Arguments))
		}
	})
	ctx := deadline(t)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			got, err := m.Execute(ctx, "echo", i)
			if err != nil || string(got) != strconv.Itoa(i) {
				t.Errorf("command %d got %s, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

func TestEndOfConnectionWakesEverybody(t *testing.T) {
	const n = 5
	m, _ := newMonitor(t, func(p *peer) {
		for range n {
			p.command()
		}
		p.send(`{"event": "SHUTDOWN"}`)
		_ = p.Close()
	})
	if err := m.Err(); err != nil {
		t.Errorf("got %v before the end", err)
	}
	events := m.Subscribe(t.Context())
	ctx := deadline(t)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if _, err := m.Execute(ctx, "wait", nil); !errors.Is(err, qmp.ErrClosed) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
	<-m.Done()
	if err := m.Err(); !errors.Is(err, qmp.ErrClosed) || err.Error() != "qmp: connection closed by QEMU" {
		t.Errorf("got %v", err)
	}
	if _, err := m.Execute(ctx, "more", nil); !errors.Is(err, qmp.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := m.Handshake(ctx); !errors.Is(err, qmp.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if e := <-events; e.Event != "SHUTDOWN" {
		t.Errorf("got event %q", e.Event)
	}
	for _, ch := range []<-chan qmp.Event{events, m.Subscribe(t.Context())} {
		if e, ok := <-ch; ok {
			t.Errorf("got %+v after the end", e)
		}
	}
}

func TestPeerThatDoesNotSpeakQMP(t *testing.T) {
	for name, line := range map[string]string{
		"human monitor":      `QEMU 7.2.22 monitor - type 'help' for more information`,
		"two greetings":      greeting + "\n" + greeting,
		"reply to nobody":    `{"return": {}}`,
		"reply with foreign": `{"return": {}, "id": "x"}`,
		"nothing known":      `{"hello": 1}`,
	} {
		t.Run(name, func(t *testing.T) {
			m, p := newMonitor(t, nil)
			p.send(line)
			<-m.Done()
			_, err := m.Execute(deadline(t), "query-status", nil)
			if !errors.Is(err, qmp.ErrClosed) || len(err.Error()) < len("qmp command query-status: qmp: connection closed: ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRunPassesTheReplyOn(t *testing.T) {
	tests := map[string]struct{ command, arguments, want, err string }{
		"plain":     {command: `{"execute": "c"}`, want: `{"return":{"a":1}}`},
		"arguments": {command: `{"execute": "c", "arguments": {"b": [2]}}`, arguments: `{"b":[2]}`, want: `{"return":{"a":1}}`},
		"id":        {command: `{"execute": "c", "id": "mine"}`, want: `{"return":{"a":1},"id":"mine"}`},
		"no JSON":   {command: `execute`, err: "qmp: decode command: "},
		"no name":   {command: `{"exec-oob": "c"}`, err: `qmp: command without "execute"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m, _ := newMonitor(t, func(p *peer) {
				c := p.command()
				if test.err == "" && (c.Execute != "c" || string(c.Arguments) != test.arguments) {
					t.Errorf("the peer got %+v", c)
				}
				p.reply(c.ID, `{"a":1}`)
			})
			out, err := m.Run([]byte(test.command))
			if test.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), test.err) {
					t.Errorf("got error %v, want %s", err, test.err)
				}
				return
			}
			if err != nil || string(out) != test.want {
				t.Errorf("got %s, %v, want %s", out, err, test.want)
			}
		})
	}
}

// FuzzPeer has a peer say anything, in two pieces, and leave.
func FuzzPeer(f *testing.F) {
	session, err := os.ReadFile("testdata/session.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(session, 100)
	f.Add([]byte(`{"return": {}, "id": 1}`+"\n"+`{"return": {}, "id": 1}`+"\n"), 5)
	f.Add([]byte("\x00\n"), 0)
	f.Fuzz(func(t *testing.T, said []byte, cut int) {
		ours, theirs := net.Pipe()
		m := qmp.New(ours)
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		go func() {
			cut = min(max(cut, 0), len(said))
			_, _ = theirs.Write(said[:cut])
			_, _ = theirs.Write(said[cut:])
			_ = theirs.Close()
		}()
		events := m.Subscribe(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		value, err := m.Execute(ctx, "query-status", nil)
		var refused *qmp.Error
		switch {
		case err == nil:
			if !json.Valid(value) {
				t.Errorf("the reply is %q", value)
			}
		case !errors.Is(err, qmp.ErrClosed) && !errors.As(err, &refused):
			t.Errorf("got %v", err)
		}
		for range events {
		}
		<-m.Done()
		if err := m.Err(); !errors.Is(err, qmp.ErrClosed) {
			t.Errorf("ended with %v", err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}
