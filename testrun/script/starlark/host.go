// Package starlark runs test scripts written in Starlark, which needs no
// Python: see [Host]. Names, parameters and messages are those of Python
// scripts; docs/scripts.md lists them, and what differs.
//
// The dialect is go.starlark.net's with sets, while loops, control flow at top
// level, reassignment of globals and recursion. load() reads files beside the
// script.
package starlark

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/script/symbols"
)

// Host implements [script.Host]. Its zero value is ready to use.
type Host struct {
	// Stdin is the terminal of Interact; the default is os.Stdin.
	Stdin *os.File

	// Stdout and Stderr receive what the script prints, and what the prompt
	// says of errors; the defaults are os.Stdout and os.Stderr.
	Stdout, Stderr io.Writer
}

var _ script.Host = Host{}

// maxScript bounds the size of a script, in bytes.
const maxScript = 16 << 20

// dialect are the parts of the language beyond Bazel's that scripts may use.
func dialect() *syntax.FileOptions {
	return &syntax.FileOptions{Set: true, While: true, TopLevelControl: true, GlobalReassign: true, Recursion: true}
}

// Run runs the script of s.
func (h Host) Run(ctx context.Context, s script.Session) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r, err := h.newRuntime(s)
	if err != nil {
		return err
	}
	r.ctx = ctx
	r.announce()
	return r.result(ctx, r.runScript(ctx))
}

func (h Host) newRuntime(s script.Session) (*runtime, error) {
	r := &runtime{
		session: s,
		stdout:  h.Stdout,
		stderr:  h.Stderr,
		lock:    make(chan struct{}, 1),
		sources: map[string][]string{},
		modules: map[string]*module{},
		methods: map[string]map[string]symbols.Function{},
	}
	if r.stdout == nil {
		r.stdout = os.Stdout
	}
	if r.stderr == nil {
		r.stderr = os.Stderr
	}
	var err error
	if r.subtests, err = newSubtests(s.Subtest); err != nil {
		return nil, err
	}
	if r.dir, err = os.Getwd(); err != nil {
		return nil, err
	}
	r.define()
	return r, nil
}

// runScript executes the script's file.
func (r *runtime) runScript(ctx context.Context) error {
	text, err := readScriptFile(r.session.ScriptPath)
	if err != nil {
		return err
	}
	return r.do(ctx, "script", func(thread *starlark.Thread) error {
		_, err := r.execute(thread, r.scriptName(), text)
		return err
	})
}

// scriptName is what backtraces call the script.
func (r *runtime) scriptName() string { return filepath.Base(r.session.ScriptPath) }

func readScriptFile(path string) ([]byte, error) {
	text, err := readScript(os.Open(path))
	if err != nil {
		return nil, fmt.Errorf("read test script: %w", err)
	}
	return text, nil
}

func readScript(f *os.File, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxScript+1))
	if err == nil && len(text) > maxScript {
		err = fmt.Errorf("%s has more than %d bytes", f.Name(), maxScript)
	}
	return text, err
}

// execute runs the text of a file and returns its globals.
func (r *runtime) execute(thread *starlark.Thread, name string, text []byte) (starlark.StringDict, error) {
	r.sources[name] = strings.Split(string(text), "\n")
	return starlark.ExecFileOptions(dialect(), thread, name, text, r.globals)
}

// module is a file that was loaded, or is being loaded: globals and err are
// not set then.
type module struct {
	loaded  bool
	globals starlark.StringDict
	err     error
}

// load implements the load statement: it reads a file of the script's
// directory, once.
func (r *runtime) load(thread *starlark.Thread, name string) (starlark.StringDict, error) {
	if !filepath.IsLocal(name) {
		return nil, errors.New("not a file below the script's directory")
	}
	name = filepath.Clean(name)
	if m := r.modules[name]; m != nil {
		if !m.loaded {
			return nil, errors.New("the file loads itself")
		}
		return m.globals, m.err
	}
	m := &module{}
	r.modules[name] = m
	defer func() { m.loaded = true }()
	root, err := os.OpenRoot(filepath.Dir(r.session.ScriptPath))
	if err != nil {
		m.err = err
		return nil, err
	}
	defer func() { _ = root.Close() }() // it was only read from
	text, err := readScript(root.Open(name))
	if err != nil {
		m.err = err
		return nil, err
	}
	m.err = r.withThread(contextOf(thread), name, func(inner *starlark.Thread) error {
		var err error
		m.globals, err = r.execute(inner, name, text)
		return err
	})
	return m.globals, m.err
}
