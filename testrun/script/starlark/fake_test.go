package starlark_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script"
)

// transcript is everything that happened, in order.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (tr *transcript) Write(b []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.text.Write(b)
}

func (tr *transcript) printf(format string, args ...any) {
	fmt.Fprintf(tr, format+"\n", args...)
}

var elapsed = regexp.MustCompile(`(after|last:) \d+\.\d\d`)

func (tr *transcript) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return elapsed.ReplaceAllString(tr.text.String(), "$1 N.NN")
}

// Handle writes events to the transcript: it is a sink.
func (tr *transcript) Handle(r event.Record) {
	switch e := r.Event.(type) {
	case event.Log:
		level := []string{"debug", "info", "warning", "error"}[e.Level]
		if e.Always {
			level = "always"
		}
		tr.printf("<log %s %q> %s", level, e.Machine, e.Text)
	case event.BlockOpen:
		tr.printf("<open %d %q subtest=%q attrs=%v> %s", e.ID, e.Machine, e.Subtest, e.Attrs, e.Text)
	case event.BlockClose:
		tr.printf("<close %d failure=%q> %s", e.ID, e.Failure, e.Text)
	case event.TestFailure:
		tr.printf("<test failure, line %d, subtest %q>\n%s", e.Line, e.Subtest, strings.Join(e.Lines, "\n"))
	}
}

func (tr *transcript) Close() error { return nil }

// fakeCaller answers as machines would, without any.
type fakeCaller struct {
	transcript *transcript
	calls      chan script.Request // receives every call when not nil
	meeting    sync.WaitGroup      // of two calls that only end together

	mu      sync.Mutex // guards lastEnv
	lastEnv string
}

func newCaller(tr *transcript) *fakeCaller {
	c := &fakeCaller{transcript: tr}
	c.meeting.Add(2)
	return c
}

type kindError struct {
	error
	kind script.Kind
}

func (e kindError) ScriptKind() string { return string(e.kind) }

type result struct {
	Status int    `json:"status"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}

func (c *fakeCaller) Call(ctx context.Context, r script.Request) (any, error) {
	var a struct {
		Command  string
		Commands []string
		Name     string
		Machines []string
	}
	if err := json.Unmarshal(r.Args, &a); err != nil {
		return nil, err
	}
	if !strings.Contains(string(r.Args), "meet") && !strings.Contains(string(r.Args), "hang") {
		c.record(r)
	}
	if c.calls != nil {
		c.calls <- r
	}
	if r.Callback != nil {
		if err := r.Callback(ctx); err != nil {
			return nil, err
		}
	}
	switch r.Method {
	case "succeed", "fail":
		var out strings.Builder
		for _, command := range a.Commands {
			switch {
			case command == "false" && r.Method == "succeed":
				return nil, kindError{errors.New("command `false` failed (exit code 1)"), script.KindAssertion}
			case command == "die":
				return nil, errors.New("machine \"only\" has died\nhint: look at its console")
			case command == "boom":
				return nil, kindError{errors.New("something else"), script.KindException}
			case command == "hang":
				<-ctx.Done()
				return nil, context.Cause(ctx)
			case command == "meet":
				c.meeting.Done()
				c.meeting.Wait()
			}
			fmt.Fprintf(&out, "output of %s\n", command)
		}
		return out.String(), nil
	case "execute":
		return []any{0, fmt.Sprintf("output of %s\n", a.Command)}, nil
	case "run":
		return result{Status: 1, Stdout: "out", Stderr: "err"}, nil
	case "parallel":
		var all []result
		for _, command := range a.Commands {
			all = append(all, result{Status: len(command) - len("good"), Stdout: command})
		}
		return all, nil
	case "succeed_all":
		return map[string]string{"alpha": "a\n"}, nil
	case "qmp_next_event":
		return map[string]any{"event": "STOP", "data": map[string]any{}, "timestamp": 1.5}, nil
	case "wait_until_succeeds", "wait_until_fails", "get_unit_property", "ssh_backdoor_command", "dump_machine_ssh":
		return "text of " + r.Method, nil
	case "get_unit_info":
		return map[string]string{"ActiveState": "active"}, nil
	case "vlan_stats":
		return []map[string]any{{"machine": "alpha", "from_frames": uint64(1 << 63)}}, nil
	case "is_up", "get_attribute":
		return true, nil
	case "rollback_begin":
		if strings.Contains(string(r.Args), "off") {
			return nil, errors.New("machine \"off\" cannot be saved")
		}
		return map[string]any{"id": 7}, nil
	case "create_machine":
		return machineInfo(a.Name), nil
	}
	return nil, nil
}

// record writes a call to the transcript.
func (c *fakeCaller) record(r script.Request) {
	var env []string
	for _, entry := range r.Env.Env {
		if strings.HasPrefix(entry, "VMTEST_") {
			env = append(env, entry)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	where := ""
	if now := fmt.Sprintf("%q", env); now != c.lastEnv {
		if c.lastEnv != "" {
			where = " with env " + now
		}
		c.lastEnv = now
	}
	if r.Callback != nil {
		where += " with a callback"
	}
	c.transcript.printf("<call %s.%s %s%s>", r.Machine, r.Method, r.Args, where)
}

func machineInfo(name string) script.MachineInfo {
	return script.MachineInfo{
		Name:      name,
		StateDir:  "/run/driver/vm-state-" + name,
		SharedDir: "/run/driver/shared-xchg-" + name,
		OutDir:    "/out",
	}
}

func session(tr *transcript, path string, machines ...string) script.Session {
	s := script.Session{
		ScriptPath: path,
		OutDir:     "/out",
		TmpDir:     "/run/driver",
		VLANs:      []int{1, 2},
		Bus:        event.NewBus(tr),
		Caller:     newCaller(tr),
	}
	for _, name := range machines {
		s.Machines = append(s.Machines, machineInfo(name))
	}
	return s
}

// within fails the test when it is not over after a while.
func within(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("the test took too long"))
	t.Cleanup(cancel)
	return ctx
}
