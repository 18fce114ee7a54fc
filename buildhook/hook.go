package buildhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"regexp"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"golang.org/x/sys/unix"

	"vm-prebuild/buildhook/admission"
	"vm-prebuild/buildhook/protocol"
)

// Options says what to build, and with what.
type Options struct {
	Dir string // of the hook: build stores, queue and log; made if missing

	// Nix is the directory with the programs of the Nix that builds. Empty means
	// those of the Nix that has started this process.
	Nix       string
	Verbosity int // of Nix, as it tells its hooks

	Match    *regexp.Regexp // takes derivations of these names, too; may be nil
	Features []string       // features that are offered, and make a derivation ours

	// TCG lets tests that need KVM run where there is none, emulated by QEMU.
	TCG bool

	Budget Budget

	SandboxPaths []string // directories and files that builders see, but cannot write to

	Caches      []string              // directories, or URLs, that may have results
	TrustedKeys []signature.PublicKey // of caches behind a URL
	Keys        []signature.SecretKey // sign outputs, besides those of Nix's secret-key-files

	// Unusable says what is wrong with the other options, if something is. Then nothing
	// is built here, and Nix does what it does without us.
	Unusable error
}

// Budget is what all tests that run may have together. What is zero has a default.
type Budget struct {
	MemoryMiB int
	Cores     int
}

// IO is how a hook and Nix are connected.
type IO struct {
	In       io.Reader // questions
	Replies  *os.File  // answers, and lines for Nix's logger
	BuildLog *os.File  // what the builder says

	// LogEnd is where BuildLog is read, which Nix's own hook does to explain that a
	// remote builder does not answer. As long as it is open, writing to BuildLog waits
	// for a Nix that has ended.
	LogEnd *os.File // may be nil
}

// Descriptors that Nix gives its hook, besides the usual ones.
const (
	firstInherited = 3
	buildLogFD     = 4
	logEndFD       = 5
)

// Streams are those of a process that Nix has started as its hook. What else it has
// inherited is kept from all that it starts.
func Streams() (IO, error) {
	if !isPipe(buildLogFD) {
		return IO{}, &protocol.Error{What: "descriptors", Err: errors.New("there is no pipe for the builder's log")}
	}
	if err := unix.CloseRange(firstInherited, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return IO{}, fmt.Errorf("keep descriptors from being inherited: %w", err)
	}
	// Writing to a Nix that has ended is an error then, and not the end of this process,
	// which has to clean up. (Ignoring the signal would make children ignore it, too.)
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	// Nix takes the end of all copies of standard output and error for the end of a
	// build: nothing may inherit them either, and nothing is written to the former.
	streams := IO{In: os.Stdin, Replies: os.Stderr, BuildLog: os.NewFile(buildLogFD, "builder's log")}
	if isPipe(logEndFD) {
		streams.LogEnd = os.NewFile(logEndFD, "end of the builder's log")
	}
	return streams, nil
}

func isPipe(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

// Run answers Nix's questions until there are no more, and builds the derivation that
// it has accepted. An error has a method ExitCode; that of a failed build is Nix's
// own, and then all has been said about it.
func Run(ctx context.Context, o Options, streams IO) error {
	in := protocol.NewReader(streams.In)
	settings, err := in.Settings()
	if err != nil {
		return err
	}
	h := &hook{Options: o, IO: streams, in: in, settings: settings, log: openLog(o.Dir)}
	defer h.log.close()
	if h.Unusable == nil {
		h.limit, h.Unusable = limitOf(o.Budget, "/")
	}
	if h.Unusable != nil {
		h.say(protocol.LevelWarn, "nothing is built here: %v", h.Unusable)
	}
	told := map[string]bool{}
	for {
		try, err := in.Try()
		if errors.Is(err, io.EOF) {
			return h.delegate.close()
		}
		if err != nil {
			return err
		}
		d := h.decide(ctx, try)
		if d.mine {
			return errors.Join(h.delegate.close(), h.closeLogEnd(), h.take(ctx, d))
		}
		h.log.note(entry{Drv: try.Drv, Event: "declined", Reason: d.reason})
		if d.test && !told[try.Drv] { // Nix asks again while it has no room itself
			told[try.Drv] = true
			h.say(protocol.LevelWarn, "%s is not built by vm-prebuild: %s", try.Drv, d.reason)
		}
		taken, err := h.ask(ctx, try)
		if taken || err != nil {
			return err
		}
	}
}

// hook is the one that Nix has started.
type hook struct {
	Options
	IO
	in       *protocol.Reader
	settings protocol.Settings
	log      *log
	limit    limit
	delegate *delegate // nil until it is needed
}

// machine is what Nix says that the test is built on.
const machine = "vm-prebuild"

// take builds a derivation, or places its outputs from a cache.
func (h *hook) take(ctx context.Context, d decision) error {
	h.log.note(entry{Drv: d.try.Drv, Event: "accepted", Reason: d.reason, Demand: d.demandOrNil()})
	if _, err := io.WriteString(h.Replies, string(protocol.Accept)+machine+"\n"); err != nil {
		return fmt.Errorf("answer Nix: %w", err)
	}
	job, err := h.in.Job()
	if err != nil {
		return err
	}
	for _, name := range job.Outputs {
		if _, ok := d.derivation.Outputs[name]; !ok {
			return &protocol.Error{What: "outputs", Err: fmt.Errorf("%s has no output %q", d.try.Drv, name)}
		}
	}
	ctx, stop, err := h.whileNixLives(ctx)
	if err != nil {
		return h.failed(d, err)
	}
	defer stop()
	if d.cache != "" {
		err := h.serve(ctx, d, job)
		if err == nil {
			h.log.note(entry{Drv: d.try.Drv, Event: "served", Reason: "its outputs are in " + d.cache})
			return nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return h.failed(d, cause)
		}
		h.log.note(entry{Drv: d.try.Drv, Event: "not served", Reason: err.Error()})
		h.say(protocol.LevelWarn, "%s: %v", d.try.Drv, err)
		if err := h.canBuild(ctx, &d); err != nil {
			return h.failed(d, err)
		}
	}
	if err := h.admit(ctx, d, job); err != nil {
		return h.failed(d, err)
	}
	h.log.note(entry{Drv: d.try.Drv, Event: "built"})
	return nil
}

// closeLogEnd is for when nobody but Nix needs to read the log any more.
func (h *hook) closeLogEnd() error {
	if h.LogEnd == nil {
		return nil
	}
	return h.LogEnd.Close()
}

// errNixEnded is why a build ends that nobody waits for any more.
var errNixEnded = errors.New("the Nix that wanted it has ended")

// whileNixLives returns a context that ends when nobody can read the hook's messages
// any more. Nix kills its hooks, but not when it is killed itself.
func (h *hook) whileNixLives(ctx context.Context) (context.Context, func(), error) {
	done, stop, err := os.Pipe()
	if err != nil {
		return ctx, nil, fmt.Errorf("watch Nix: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// Without events that are asked for, only that others have closed is reported.
		fds := []unix.PollFd{{Fd: int32(h.Replies.Fd())}, {Fd: int32(done.Fd())}}
		for fds[0].Revents|fds[1].Revents == 0 {
			if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
		}
		if fds[1].Revents == 0 {
			cancel(errNixEnded)
		}
	}()
	return ctx, func() {
		stop.Close()
		<-ended
		done.Close()
		cancel(nil)
	}, nil
}

// demandOrNil is what is logged of a test's demand.
func (d *decision) demandOrNil() *admission.Demand {
	if d.cache != "" {
		return nil
	}
	return &d.demand
}

// admit builds when there is room.
func (h *hook) admit(ctx context.Context, d decision, job protocol.Job) error {
	place, err := admission.Enter(ctx, queueDir(h.Dir), d.try.Drv, d.demand, h.limit.budget, func(before []admission.Ticket, unwatched error) {
		reason := fmt.Sprintf("for room for %d MiB and %d cores; %d tests are before it", d.demand.MemoryMiB, d.demand.Cores, len(before))
		h.log.note(entry{Drv: d.try.Drv, Event: "waiting", Reason: reason, Demand: &d.demand})
		if unwatched != nil {
			h.log.note(entry{Drv: d.try.Drv, Event: "looks every so often", Reason: unwatched.Error()})
		}
		h.say(protocol.LevelInfo, "%s waits %s", d.try.Drv, reason)
	})
	if err != nil {
		return err
	}
	defer place.Leave()
	return h.build(ctx, d, job)
}

// failed says why, and returns the error by which Nix knows that a build has failed.
func (h *hook) failed(d decision, err error) error {
	h.log.note(entry{Drv: d.try.Drv, Event: "failed", Reason: err.Error()})
	h.say(protocol.LevelError, "%v", err)
	code := exitOther
	if e := new(buildError); errors.As(err, &e) {
		code = e.code
	}
	return &buildError{err, code}
}

// Exit codes of Nix's own hook; versions before 2.12 know them.
const (
	exitOther    = 1 // not the test's fault
	exitFailed   = 100
	exitTimedOut = 101
)

// buildError is that of a build, of which Nix only learns the exit code.
type buildError struct {
	err  error
	code int
}

func (e *buildError) Error() string { return e.err.Error() }
func (e *buildError) Unwrap() error { return e.err }

// ExitCode is that by which Nix knows what happened.
func (e *buildError) ExitCode() int { return e.code }

// say has Nix's logger show a line.
func (h *hook) say(level protocol.Level, format string, args ...any) {
	_, _ = io.WriteString(h.Replies, protocol.Message(level, "vm-prebuild: "+fmt.Sprintf(format, args...))) // if nobody listens, there is nobody to tell
}
