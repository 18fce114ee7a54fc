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

//go:embed shim/test_driver/*.py shim/test_driver/*/*.py
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

	mu       sync.Mutex // guards underWay
	underWay map[uint64]*call
}

// call is one call that the script waits for.
type call struct {
	cancel     context.CancelFunc
	calledBack chan struct{} // has room for the answer to the one callback sent
}

func newConversation(s script.Session, conn io.ReadWriter, onEnd func()) *conversation {
	return &conversation{
		session:  s,
		conn:     conn,
		onEnd:    onEnd,
		blocks:   make(map[uint64]*event.Block),
		underWay: make(map[uint64]*call),
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
		KeepGoing:  c.session.KeepGoing,
		Subtest:    c.session.Subtest,
		DebugHook:  c.session.DebugHook,
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
		if call := c.find(m.Cancel.ID); call != nil {
			call.cancel()
		}
	case m.CalledBack != nil:
		if call := c.find(m.CalledBack.ID); call != nil {
			select {
			case call.calledBack <- struct{}{}:
			default: // nobody has asked
			}
		}
	case m.Finished != nil:
		c.end(nil)
	case m.Failed != nil:
		c.end(&script.Failure{
			Kind:     m.Failed.Kind,
			Message:  m.Failed.Message,
			Lines:    m.Failed.Lines,
			ExitCode: m.Failed.ExitCode,
			Line:     m.Failed.Line,
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
		c.writeLater(encodeReply(m.ID, result, err))
		return nil
	}
	callCtx, cancel := context.WithCancel(ctx)
	this := &call{cancel: cancel}
	if m.Callbacks {
		this.calledBack = make(chan struct{}, 1)
		request.Callback = func(ctx context.Context) error { return c.callBack(ctx, m.ID, this) }
	}
	c.mu.Lock()
	_, busy := c.underWay[m.ID]
	if !busy {
		c.underWay[m.ID] = this
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
		delete(c.underWay, m.ID)
		c.mu.Unlock()
		c.write(encodeReply(m.ID, result, err))
	})
	return nil
}

// find returns a call under way, or nil.
func (c *conversation) find(id uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.underWay[id]
}

// callBack has the script run the callbacks of a call and waits for them. When
// one fails, the script cancels the call, which ends ctx.
func (c *conversation) callBack(ctx context.Context, id uint64, this *call) error {
	line, err := encodeLine(callback{ID: id, Callback: true})
	if err != nil {
		return err
	}
	c.write(line)
	select {
	case <-this.calledBack:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// write sends one message. When it fails, the interpreter is gone; serve and
// the wait for its exit say so.
func (c *conversation) write(line []byte) {
	c.writing.Lock()
	c.finishWrite(line)
}

// writeLater is write for serve, which must go on reading while a large reply
// is under way: the script may be sending something large itself.
func (c *conversation) writeLater(line []byte) {
	if c.writing.TryLock() {
		c.finishWrite(line)
		return
	}
	c.calls.Go(func() { c.write(line) })
}

func (c *conversation) finishWrite(line []byte) {
	defer c.writing.Unlock()
	_, _ = c.conn.Write(line)
}

// moduleSources returns the sources of test_driver by module name. Names of
// packages are there a second time, with ".*" behind them.
func moduleSources() (map[string]string, error) {
	sources := make(map[string]string)
	err := fs.WalkDir(modules, "shim/test_driver", func(path string, d fs.DirEntry, err error) error {
		name, isModule := strings.CutSuffix(path, ".py")
		if err != nil || !isModule {
			return err
		}
		source, err := modules.ReadFile(path)
		if err != nil {
			return err
		}
		name = strings.ReplaceAll(strings.TrimPrefix(name, "shim/"), "/", ".")
		if pkg, ok := strings.CutSuffix(name, ".__init__"); ok {
			name = pkg
			sources[pkg+".*"] = ""
		}
		sources[name] = string(source)
		return nil
	})
	return sources, err
}

// nonNil makes a nil slice an empty one, which JSON tells from null.
func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
