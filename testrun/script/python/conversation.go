package python

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script"
)

//go:embed shim/test_driver/*.py
var modules embed.FS

// conversation serves one interpreter: it has calls executed, reports what the
// script logs, and learns how the script ended. Its fields without comment
// belong to serve.
type conversation struct {
	session script.Session
	conn    io.ReadWriter
	onEnd   func() // called when the script has ended, or its end of conn is closed

	env    script.Environment
	blocks map[uint64]*event.Block

	ended  bool
	result error // of the script, when ended

	writing sync.Mutex // of conn
	calls   sync.WaitGroup

	mu      sync.Mutex                    // guards cancels
	cancels map[uint64]context.CancelFunc // of calls under way
}

func newConversation(s script.Session, conn io.ReadWriter, onEnd func()) *conversation {
	return &conversation{
		session: s,
		conn:    conn,
		onEnd:   onEnd,
		blocks:  make(map[uint64]*event.Block),
		cancels: make(map[uint64]context.CancelFunc),
	}
}

// serve answers the script until its end of the connection closes. It returns
// an error when the script breaks the protocol.
func (c *conversation) serve(ctx context.Context, mode string) error {
	sources, err := moduleSources()
	if err != nil {
		return err
	}
	hello, err := encodeLine(initial{setup{
		ScriptPath: c.session.ScriptPath,
		Machines:   nonNil(c.session.Machines),
		VLANs:      nonNil(c.session.VLANs),
		OutDir:     c.session.OutDir,
		TmpDir:     c.session.TmpDir,
		Mode:       mode,
		Modules:    sources,
	}})
	if err != nil {
		return fmt.Errorf("encode session: %w", err)
	}
	c.write(hello)

	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, maxMessage)
	for lines.Scan() {
		m, err := decodeMessage(lines.Bytes())
		if err != nil {
			return err
		}
		if err := c.handle(ctx, m); err != nil {
			return err
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("message of more than %d MiB", maxMessage>>20)
	}
	// All other read errors mean that the interpreter is gone. When it only
	// has closed its end, it is on its way out, too.
	c.onEnd()
	return nil
}

// close waits for the calls under way, whose context has ended, and closes the
// blocks that the script left open because of reason.
func (c *conversation) close(reason error) {
	c.calls.Wait()
	failure := "script ended"
	if reason != nil {
		failure = reason.Error()
	}
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(c.blocks))) {
		c.blocks[id].Close(failure)
	}
}

func (c *conversation) handle(ctx context.Context, m message) error {
	switch {
	case m.Environment != nil:
		c.env = *m.Environment
	case m.Cancel != nil:
		c.mu.Lock()
		defer c.mu.Unlock()
		if cancel, ok := c.cancels[m.Cancel.ID]; ok {
			cancel()
		}
	case m.Finished != nil:
		c.end(nil)
	case m.Failed != nil:
		c.end(&script.Failure{
			Kind:     m.Failed.Kind,
			Message:  m.Failed.Message,
			Lines:    m.Failed.Lines,
			ExitCode: m.Failed.ExitCode,
		})
	case m.Unsupported != nil:
		return fmt.Errorf("this is Python %s\nhint: test scripts need Python 3.11 or newer", m.Unsupported.Version)
	default:
		return c.call(ctx, m)
	}
	return nil
}

// end notes how the script ended; only the first time counts.
func (c *conversation) end(result error) {
	if !c.ended {
		c.ended, c.result = true, result
		c.onEnd()
	}
}

func (c *conversation) call(ctx context.Context, m message) error {
	request := script.Request{Machine: m.Machine, Method: m.Method, Args: m.Args, Env: c.env}
	if report := c.reporter(request); report != nil {
		// In order with everything else that the script reports.
		result, err := report(request)
		c.reply(m.ID, result, err)
		return nil
	}
	callCtx, cancel := context.WithCancel(ctx)
	c.mu.Lock()
	_, busy := c.cancels[m.ID]
	if !busy {
		c.cancels[m.ID] = cancel
	}
	c.mu.Unlock()
	if busy {
		cancel()
		return fmt.Errorf("call %d of %q has the number of a call under way", m.ID, m.Method)
	}
	c.calls.Go(func() {
		result, err := c.session.Caller.Call(callCtx, request)
		cancel()
		c.mu.Lock()
		delete(c.cancels, m.ID)
		c.mu.Unlock()
		c.reply(m.ID, result, err)
	})
	return nil
}

func (c *conversation) reply(id uint64, result any, err error) {
	if err == nil {
		var line []byte
		if line, err = encodeLine(reply{ID: id, Result: result}); err == nil {
			c.write(line)
			return
		}
	}
	line, err := encodeLine(reply{ID: id, Error: &replyError{Kind: script.KindOf(err), Message: err.Error()}})
	if err == nil { // two strings cannot fail to encode
		c.write(line)
	}
}

// write sends one message. When it fails, the interpreter is gone; serve and
// the wait for its exit say so.
func (c *conversation) write(line []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, _ = c.conn.Write(line)
}

// moduleSources returns the sources of test_driver by module name.
func moduleSources() (map[string]string, error) {
	paths, err := fs.Glob(modules, "shim/test_driver/*.py")
	if err != nil {
		return nil, err
	}
	sources := make(map[string]string, len(paths))
	for _, path := range paths {
		source, err := modules.ReadFile(path)
		if err != nil {
			return nil, err
		}
		name := strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(path, "shim/"), ".py"), "/", ".")
		sources[strings.TrimSuffix(name, ".__init__")] = string(source)
	}
	return sources, nil
}

// nonNil makes a nil slice an empty one, which JSON tells from null.
func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
