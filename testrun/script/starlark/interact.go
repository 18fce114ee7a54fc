package starlark

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/peterh/liner"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
	"golang.org/x/term"

	"vm-prebuild/testrun/script"
)

// history keeps what was typed, in the working directory, as nixpkgs' driver
// does.
const history = ".nixos-test-history"

// errInterrupted is Ctrl-C.
var errInterrupted = errors.New("interrupted")

// Interact reads statements from h.Stdin and executes them, until its end or
// Ctrl-D. On a terminal lines can be edited; Ctrl-C interrupts what was typed,
// and not the driver.
func (h Host) Interact(ctx context.Context, s script.Session) error {
	r, err := h.newRuntime(s)
	if err != nil {
		return err
	}
	r.ctx = ctx
	r.announce()
	p := &prompt{r: r, globals: maps.Clone(r.globals)}
	stdin := h.Stdin
	if stdin == nil {
		stdin = os.Stdin
	}
	if stdin.Fd() == os.Stdin.Fd() && term.IsTerminal(int(stdin.Fd())) {
		fmt.Fprintln(r.stdout, "test_script() runs the test; Ctrl-D leaves.")
		defer p.edit()()
		p.terminal = int(stdin.Fd())
	} else {
		lines := bufio.NewReader(stdin)
		p.read = func(string) (string, error) { return readLine(lines) }
		p.terminal = -1
	}
	return p.loop(ctx)
}

func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if line != "" {
		err = nil
	}
	return strings.TrimSuffix(line, "\n"), err
}

// prompt is an interactive session.
type prompt struct {
	r        *runtime
	globals  starlark.StringDict
	terminal int // descriptor; -1 when there is none
	read     func(prompt string) (string, error)

	statements int // so far
}

// edit has lines edited on the terminal, and returns what gives it back.
func (p *prompt) edit() func() {
	editor := liner.NewLiner()
	editor.SetCtrlCAborts(true)
	editor.SetMultiLineMode(true)
	editor.SetWordCompleter(p.complete)
	if f, err := os.Open(history); err == nil {
		_, _ = editor.ReadHistory(f) // a convenience
		f.Close()
	}
	p.read = func(prompt string) (string, error) {
		line, err := editor.Prompt(prompt)
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			return "", errInterrupted
		case err == nil && strings.TrimSpace(line) != "":
			editor.AppendHistory(line)
		}
		return line, err
	}
	return func() {
		if f, err := os.OpenFile(history, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600); err == nil {
			_, _ = editor.WriteHistory(f)
			f.Close()
		}
		_ = editor.Close()
	}
}

// complete offers the globals that begin with the word at pos, or the
// attributes of the value before its dot.
func (p *prompt) complete(line string, pos int) (head string, completions []string, tail string) {
	start := pos
	for start > 0 && (line[start-1] == '_' || line[start-1] == '.' || isAlphanumeric(line[start-1])) {
		start--
	}
	word := line[start:pos]
	candidates := slices.Collect(maps.Keys(p.globals))
	value, _, dotted := strings.Cut(word, ".")
	if dotted {
		candidates = nil
		if v, ok := p.globals[value].(starlark.HasAttrs); ok {
			for _, name := range v.AttrNames() {
				candidates = append(candidates, value+"."+name)
			}
		}
	}
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		if strings.HasPrefix(c, word) {
			completions = append(completions, c)
		}
	}
	return line[:start], completions, line[pos:]
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (p *prompt) loop(ctx context.Context) error {
	for {
		err := p.statement(ctx)
		var exit *exitError
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errInterrupted):
			fmt.Fprintln(p.r.stderr, "interrupted")
		case errors.As(err, &exit):
			return p.r.result(ctx, err)
		case err != nil:
			p.explain(err)
		}
	}
}

// statement reads, executes and prints one statement.
func (p *prompt) statement(ctx context.Context) error {
	p.statements++
	name := fmt.Sprintf("<prompt %d>", p.statements) // functions keep theirs
	var lines []string
	var failed error
	file, err := dialect().ParseCompoundStmt(name, func() ([]byte, error) {
		text := ">>> "
		if len(lines) > 0 {
			text = "... "
		}
		line, err := p.line(ctx, text)
		if err != nil {
			failed = err
			return nil, err
		}
		lines = append(lines, line)
		return []byte(line + "\n"), nil
	})
	p.r.sources[name] = lines
	if failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if p.terminal >= 0 {
		watch, err := watchInterrupt(p.terminal, func() { cancel(errInterrupted) })
		if err != nil {
			return err
		}
		defer watch.stop()
	}
	err = p.r.do(ctx, "prompt", func(thread *starlark.Thread) error { return p.execute(thread, file) })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// line reads one line. When ctx ends first, the reader is left alone: the
// driver is about to end.
func (p *prompt) line(ctx context.Context, text string) (string, error) {
	type result struct {
		line string
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := p.read(text)
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return r.line, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (p *prompt) execute(thread *starlark.Thread, file *syntax.File) error {
	if len(file.Stmts) == 1 {
		if e, ok := file.Stmts[0].(*syntax.ExprStmt); ok {
			v, err := starlark.EvalExprOptions(dialect(), thread, e.X, p.globals)
			if err == nil && v != starlark.None {
				fmt.Fprintln(p.r.stdout, v)
			}
			return err
		}
	}
	return starlark.ExecREPLChunk(file, thread, p.globals)
}

// explain tells of an error as that of a script is told.
func (p *prompt) explain(err error) {
	if f := p.r.failure(err); f != nil {
		fmt.Fprintln(p.r.stderr, strings.Join(f.Lines, "\n"))
		return
	}
	fmt.Fprintln(p.r.stderr, err)
}
