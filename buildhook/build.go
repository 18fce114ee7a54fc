package buildhook

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vm-prebuild/buildhook/protocol"
	"vm-prebuild/buildhook/serve"
	"vm-prebuild/nar/storepath"
	"vm-prebuild/storedb"
	"vm-prebuild/storedb/mountns"
)

// build has Nix build a derivation in a store of its own, and brings its outputs
// into the store that asks.
func (h *hook) build(ctx context.Context, d decision, job protocol.Job) error {
	if d.emulated != "" {
		h.say(protocol.LevelWarn, "KVM CANNOT BE USED (%s): QEMU EMULATES THE PROCESSOR OF %s, MANY TIMES SLOWER", d.emulated, d.try.Drv)
	}
	request := d.request
	request.Drv, request.Derivation, request.Inputs = d.try.Drv, d.derivation, job.Inputs
	closure, err := inputs(ctx, d.root, job.Inputs, h.sandboxPaths(d))
	if err != nil {
		return err
	}
	b := &builder{hook: h, result: make(chan serve.Result, 1)}
	request.Ready = func() {
		h.log.note(entry{Drv: d.try.Drv, Event: "started", Reason: fmt.Sprintf("Nix has a store with %d inputs", len(closure.Paths))})
	}
	result, err := b.run(ctx, request, mountns.Options{
		Closure: closure, From: d.root, Dir: buildsDir(h.Dir),
		Command: []string{d.nix, "--serve", "--write", "--log-format", "internal-json"},
		Env:     cleanEnvironment(), Environment: h.environment(d.config),
		ReadOnly: h.SandboxPaths, PIDNamespace: true,
		Collect: func(w *mountns.Written) error { return b.collect(ctx, d, job, w) },
	})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	if !result.OK() {
		code := exitFailed
		if result.Status == serve.TimedOut {
			code = exitTimedOut
		}
		// The rest is the end of the log, of which Nix knows itself.
		message, _, _ := strings.Cut(result.Message, "\n")
		return &buildError{errors.New(strings.TrimSuffix(message, ";")), code}
	}
	return nil
}

// prepare finds out all that a build needs but its inputs, while the test can still
// be left to others.
func (h *hook) prepare(d *decision) (err error) {
	if d.nix, err = h.nixProgram("nix-store"); err != nil {
		return err
	}
	// Those that Nix offers do something, too: kvm, that the device is in the sandbox.
	features := append(strings.Fields(h.settings["system-features"]), d.try.Features...)
	slices.Sort(features)
	if d.config, err = h.config(slices.Compact(features), h.sandboxPaths(*d)); err != nil {
		return err
	}
	d.request, err = h.limits()
	return err
}

// limits are those that Nix does not enforce for hooks.
func (h *hook) limits() (q serve.Request, err error) {
	for name, limit := range map[string]*time.Duration{"timeout": &q.Timeout, "max-silent-time": &q.MaxSilentTime} {
		seconds, err := h.number(name, math.MaxInt32)
		if err != nil {
			return q, err
		}
		*limit = time.Duration(seconds) * time.Second
	}
	q.MaxLogSize, err = h.number("max-build-log-size", math.MaxUint64)
	return q, err
}

// number is a setting that is one; 0 if this Nix does not have it.
func (h *hook) number(name string, limit uint64) (uint64, error) {
	text, ok := h.settings[name]
	if !ok || text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n > limit {
		return 0, fmt.Errorf("Nix's setting %s is %q, not a number of at most %d", name, text, limit) //nolint:revive,staticcheck // a name
	}
	return n, nil
}

// sandboxPaths are the values of that setting, and our own.
func (h *hook) sandboxPaths(d decision) []string {
	paths := strings.Fields(h.settings["sandbox-paths"])
	paths = append(paths, h.SandboxPaths...)
	if slices.Contains(d.try.Features, featureDevNet) {
		paths = append(paths, devNet)
	}
	if _, err := os.Stat(devKVM); err == nil && d.emulated != "" {
		// A device that works badly is not to be found.
		paths = append(paths, devKVM+"="+os.DevNull)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// inputs is what is known of the inputs of a build. What is to be seen in the
// sandbox of the store comes with all that it refers to, as with Nix.
func inputs(ctx context.Context, root string, paths, sandboxPaths []string) (*storedb.Closure, error) {
	for _, path := range sandboxPaths {
		_, source, ok := strings.Cut(strings.TrimSuffix(path, "?"), "=")
		if !ok {
			source = strings.TrimSuffix(path, "?")
		}
		inside, ok := strings.CutPrefix(filepath.Clean(source), storepath.Dir+"/")
		if !ok {
			continue
		}
		base, _, _ := strings.Cut(inside, "/")
		inStore := storepath.Dir + "/" + base
		if storepath.Check(inStore) != nil || slices.Contains(paths, inStore) {
			continue
		}
		if _, err := storedb.QueryClosure(ctx, root, []string{inStore}); err == nil { // it need not be valid
			paths = append(slices.Clone(paths), inStore)
		}
	}
	return storedb.QueryClosure(ctx, root, paths)
}

// builder is one build in a store of its own.
type builder struct {
	*hook
	result chan serve.Result // one, before the process that builds is told to end
}

// run starts the process that builds, talks to it, and passes on what it says.
func (b *builder) run(ctx context.Context, q serve.Request, o mountns.Options) (serve.Result, error) {
	var files [6]*os.File // requests, answers and log: the ends to read, and to write
	for i := 0; i < len(files); i += 2 {
		var err error
		if files[i], files[i+1], err = os.Pipe(); err != nil {
			return serve.Result{}, fmt.Errorf("start a build: %w", err)
		}
		defer files[i].Close()
		defer files[i+1].Close()
	}
	stdin, requests, answers, stdout, log, stderr := files[0], files[1], files[2], files[3], files[4], files[5]
	signals := make(chan os.Signal, 2)
	o.Stdin, o.Stdout, o.Stderr, o.Signals = stdin, stdout, stderr, signals
	defer terminate(ctx, func(sig os.Signal) { signals <- sig })()

	type outcome struct {
		result serve.Result
		err    error
	}
	talked, logged := make(chan outcome, 1), make(chan error, 1)
	go func() {
		result, err := serve.Build(requests, answers, q)
		if err == nil {
			b.result <- result
		}
		requests.Close() // it ends then
		talked <- outcome{result, err}
	}()
	go func() { logged <- b.passOn(log) }()
	code, err := mountns.Run(ctx, o)
	// Nobody writes any more, but for us.
	for _, f := range []*os.File{stdin, stdout, stderr} {
		f.Close()
	}
	talk := <-talked
	logErr := <-logged
	if err == nil && code != 0 {
		err = fmt.Errorf("nix-store --serve ended with exit code %d", code)
	}
	if err == nil {
		err = errors.Join(talk.err, logErr)
	}
	return talk.result, err
}

// killAfter is for how long Nix may clean up after a build that was given up.
const killAfter = 3 * time.Second

// terminate asks a process to end when ctx ends, and has it killed if it does not. (The
// first of a namespace takes all others with it.) The caller says when it has ended.
func terminate(ctx context.Context, send func(os.Signal)) (ended func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		send(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(killAfter):
			send(syscall.SIGKILL)
		}
	})
	return func() {
		stop()
		close(done)
	}
}

// activity is a line of Nix's logger, as far as it is of interest.
type activity struct {
	Action string            `json:"action"`
	Level  protocol.Level    `json:"level"`
	Text   string            `json:"msg"`
	Type   int               `json:"type"`
	Fields []json.RawMessage `json:"fields"`
}

// Types of results.
const (
	resultBuildLogLine = 101
	resultSetPhase     = 104
)

// passOn brings the builder's lines to Nix's log, and messages of the Nix that
// builds to that of its user.
func (b *builder) passOn(log io.Reader) error {
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			b.line(strings.TrimSuffix(line, "\n"))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the log of a build: %w", err)
		}
	}
}

func (b *builder) line(line string) {
	var a activity
	text, ok := strings.CutPrefix(line, "@nix ")
	if !ok || json.Unmarshal([]byte(text), &a) != nil {
		b.say(protocol.LevelWarn, "%s", line)
		return
	}
	switch {
	case a.Action == "msg" && a.Level <= protocol.LevelWarn:
		b.say(a.Level, "%s", a.Text)
	case a.Action == "result" && len(a.Fields) > 0 && (a.Type == resultBuildLogLine || a.Type == resultSetPhase):
		var field string
		if json.Unmarshal(a.Fields[0], &field) != nil {
			return
		}
		if a.Type == resultSetPhase {
			field = strings.TrimSuffix(protocol.Phase(field), "\n")
		}
		// Nobody reads it only if Nix has ended, and then so do we.
		_, _ = b.BuildLog.WriteString(field + "\n")
	}
}
