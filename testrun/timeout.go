package testrun

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
)

// ErrGlobalTimeout ends a test that took longer than its global time-out.
var ErrGlobalTimeout = errors.New("the global time-out of the test was reached")

// startTimer returns a context that ends with the global time-out.
func (d *driver) startTimer(ctx context.Context) (context.Context, func()) {
	limit := d.cfg.GlobalTimeout
	if limit == 0 {
		return ctx, func() {}
	}
	d.bus.Log(event.Info, "", fmt.Sprintf("Test will time out and terminate in %s seconds", machine.PythonSeconds(limit)))
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() {
		cancel(fmt.Errorf("%w (%s seconds)%s", ErrGlobalTimeout, machine.PythonSeconds(limit), d.underWay()))
	})
	d.stopTimer = func() { timer.Stop() }
	return ctx, func() {
		timer.Stop()
		cancel(nil)
	}
}

// underWay tells what a test is doing, and what ails its machines: a line for
// each, with a line feed in front.
func (d *driver) underWay() string {
	var b strings.Builder
	for _, what := range d.blocks.list() {
		b.WriteString("\nunder way: " + what)
	}
	for _, m := range d.all() {
		if p, ok := m.(machine.Patient); ok && p.Ailment() != "" {
			fmt.Fprintf(&b, "\nmachine %q: %s", m.Name(), p.Ailment())
		}
	}
	return b.String()
}

// openBlocks is a sink that knows which blocks are open.
type openBlocks struct {
	mu   sync.Mutex
	open []event.BlockOpen
}

// Handle implements event.Sink.
func (o *openBlocks) Handle(r event.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch e := r.Event.(type) {
	case event.BlockOpen:
		o.open = append(o.open, e)
	case event.BlockClose:
		o.open = slices.DeleteFunc(o.open, func(b event.BlockOpen) bool { return b.ID == e.ID })
	}
}

// Close implements event.Sink.
func (o *openBlocks) Close() error { return nil }

// list returns the texts of the blocks that are open, outermost first.
func (o *openBlocks) list() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []string
	for _, b := range o.open {
		text := b.Text
		if b.Machine != "" {
			text = b.Machine + ": " + text
		}
		all = append(all, text)
	}
	return all
}
