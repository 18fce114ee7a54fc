package starlark

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/script/symbols"
)

// condition is a function that must not return False or fail while something
// else is done.
type condition struct {
	r           *runtime
	fn          starlark.Callable
	interval    time.Duration
	description string

	lastChecked time.Time // zero: never
	checking    bool
}

var _ starlark.HasAttrs = (*condition)(nil)

func (c *condition) String() string        { return fmt.Sprintf("<condition %q>", c.description) }
func (c *condition) Type() string          { return "Condition" }
func (c *condition) Freeze()               {}
func (c *condition) Truth() starlark.Bool  { return true }
func (c *condition) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: %s", c.Type()) }
func (c *condition) AttrNames() []string   { return names(c.Type()) }

// Attr returns a method.
func (c *condition) Attr(name string) (starlark.Value, error) {
	return attribute(c.r, c, c.Type(), name, conditionMethods, nil), nil
}

var conditionMethods = map[string]method[*condition]{
	"during": func(r *runtime, thread *starlark.Thread, c *condition, _ symbols.Function, a arguments) (starlark.Value, error) {
		r.conditions = append(r.conditions, c)
		defer func() {
			if i := slices.Index(r.conditions, c); i >= 0 {
				r.conditions = slices.Delete(slices.Clone(r.conditions), i, i+1)
			}
		}()
		return starlark.Call(thread, a.function("fn"), nil, nil)
	},
	"wait": func(r *runtime, thread *starlark.Thread, c *condition, _ symbols.Function, a arguments) (starlark.Value, error) {
		bus := r.session.Bus
		return starlark.None, bus.Nested("", "waiting for "+c.description, func() error {
			return r.retry(thread, a, func(last bool) (bool, error) {
				if last {
					bus.Log(event.Info, "", "Last chance for "+c.description)
				}
				holds, err := c.holds(thread, true)
				if err == nil && !holds && !last {
					bus.Log(event.Info, "", "("+c.description+" failure not fatal yet)")
				}
				return holds, err
			})
		})
	},
}

// newCondition implements polling_condition.
func newCondition(r *runtime, _ *starlark.Thread, _ symbols.Function, a arguments) (starlark.Value, error) {
	fn := a.function("fun_")
	if fn == nil {
		return nil, fmt.Errorf("polling_condition: missing argument for %q", "fun_")
	}
	c := &condition{r: r, fn: fn, interval: 2 * time.Second, description: fn.Name()}
	if s, ok := a.seconds("interval"); ok {
		c.interval = duration(s)
	}
	if f, ok := fn.(*starlark.Function); ok && f.Doc() != "" {
		c.description = strings.TrimSpace(f.Doc())
	}
	if d := a.str("description"); d != "" {
		c.description = d
	}
	return c, nil
}

// holds checks the condition if that is due, or forced. It is not checked
// again by the commands that it runs itself. The error is the end of the test.
func (c *condition) holds(thread *starlark.Thread, force bool) (bool, error) {
	since := time.Since(c.lastChecked)
	if !force && (c.checking || !c.lastChecked.IsZero() && since <= c.interval) {
		return true, nil
	}
	c.checking = true
	defer func() { c.checking, c.lastChecked = false, time.Now() }()
	bus := c.r.session.Bus
	holds := false
	err := bus.Nested("", fmt.Sprintf("Checking polling condition '%s'", c.description), func() error {
		if c.lastChecked.IsZero() {
			bus.Log(event.Info, "", "(not called yet)")
		} else {
			bus.Log(event.Info, "", fmt.Sprintf("Time since last: %.2fs", since.Seconds()))
		}
		v, err := starlark.Call(thread, c.fn, nil, nil)
		if err != nil && c.r.ending(thread, err) {
			return err
		}
		holds = err == nil && (v == starlark.None || bool(v.Truth()))
		bus.Log(event.Info, "", c.status(holds))
		return nil
	})
	return holds, err
}

func (c *condition) status(holds bool) string {
	word := "failed"
	if holds {
		word = "succeeded"
	}
	return "Polling condition " + word + ": " + c.description
}

// beforeCommand checks the active conditions before f, unless f does not talk
// to the guest.
func (r *runtime) beforeCommand(thread *starlark.Thread, f symbols.Function) error {
	if f.Async {
		return nil
	}
	return r.checkConditions(thread)
}

func (r *runtime) checkConditions(thread *starlark.Thread) error {
	for _, c := range r.conditions {
		holds, err := c.holds(thread, false)
		if err != nil {
			return err
		}
		if !holds {
			return &scriptError{name: "PollingConditionError", kind: script.KindException, err: fmt.Errorf("%s", c.status(false))}
		}
	}
	return nil
}

// callback checks the conditions between the polls of a wait.
func (r *runtime) callback(ctx context.Context) error {
	return r.do(ctx, "polling condition", r.checkConditions)
}

// The pauses of retry, which backs off.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// retry calls attempt until it says true, and one last time after the time-out
// of a, 15 minutes by default.
func (r *runtime) retry(thread *starlark.Thread, a arguments, attempt func(last bool) (bool, error)) error {
	limit := machine.DefaultTimeout
	if s, ok := a.seconds("timeout"); ok {
		limit = duration(s)
	}
	start := time.Now()
	for pause := firstPause; time.Since(start) < limit; pause = min(pause*3/2, lastPause) {
		done, err := attempt(false)
		if err != nil || done {
			return err
		}
		if err := r.sleep(thread, pause); err != nil {
			return err
		}
	}
	elapsed := time.Since(start)
	done, err := attempt(true)
	if err != nil || done {
		return err
	}
	return assertion(fmt.Sprintf("action timed out after %.2f seconds (timeout=%s)", elapsed.Seconds(), machine.PythonSeconds(limit)))
}

// sleep lets time pass on the host.
func (r *runtime) sleep(thread *starlark.Thread, d time.Duration) error {
	ctx := contextOf(thread)
	timer := time.NewTimer(d)
	defer timer.Stop()
	r.waiting(func() {
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// duration returns a number of seconds as a Duration, at most ten years.
func duration(seconds float64) time.Duration {
	const most = 10 * 365 * 24 * 3600
	return time.Duration(min(max(seconds, 0), most) * float64(time.Second))
}
