// Package protocol is what Nix and a program named by its setting build-hook say
// to each other. [NewReader] reads what Nix sends, [Reply] and the functions that
// make lines for Nix's logger are what it reads.
//
// Nix writes to the hook's standard input, in its usual encoding (numbers of 64
// bits, little-endian; strings with their length before them, filled up to eight
// bytes): its settings, then questions, each of which gets one line as an answer
// on standard error. After "# accept" and the name of a machine, it sends the
// inputs and the outputs of the derivation, and ends its input; the builder's log
// goes to descriptor 4. Nix takes the end of standard output and standard error
// for the end of the build. (src/libstore/build/derivation-goal.cc,
// hook-instance.cc and src/build-remote/build-remote.cc in Nix 2.8, since then
// moved but not changed.)
package protocol

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/nix-community/go-nix/pkg/wire"

	"vm-prebuild/nar/storepath"
)

// What Nix sends is some kibibytes of settings, and at most as many store paths
// as a closure has. More is not Nix.
const (
	maxSettings = 10_000
	maxString   = 1 << 20 // bytes
	maxFeatures = 1_000
	maxOutputs  = 1_000
	maxPaths    = 1 << 20
)

// Error says what is not as Nix sends it.
type Error struct {
	What string // which part
	Err  error
}

func (e *Error) Error() string {
	return fmt.Sprintf("build hook protocol: %s: %v\nhint: this program is started by Nix, which is told of it by the setting build-hook", e.What, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// ExitCode is that of wrong usage.
func (e *Error) ExitCode() int { return 2 }

// Settings are those of Nix, by name. All values are text.
type Settings map[string]string

// Try is a question: will you build this?
type Try struct {
	Willing  bool   // Nix has a free slot for a build of its own
	System   string // such as x86_64-linux
	Drv      string // store path of the derivation; the store need not be in the usual place
	Features []string
}

// Job is what is known of a derivation that was accepted.
type Job struct {
	Inputs  []string // store paths, complete with all that they refer to
	Outputs []string // names of those outputs that are not valid
}

// Reader reads what Nix sends.
type Reader struct{ r *bufio.Reader }

// NewReader reads from r, which may block between questions for as long as Nix
// builds other things.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReader(r)} }

// Settings reads what comes first.
func (r *Reader) Settings() (Settings, error) {
	s := Settings{}
	for {
		more, err := r.number("settings", 1)
		if err != nil {
			return nil, err
		}
		if more == 0 {
			return s, nil
		}
		name, err := r.text("settings")
		if err != nil {
			return nil, err
		}
		value, err := r.text("setting " + name)
		if err != nil {
			return nil, err
		}
		if _, twice := s[name]; twice || name == "" || len(s) == maxSettings {
			return nil, &Error{"settings", fmt.Errorf("%q comes twice, is empty, or is one too many", name)}
		}
		s[name] = value
	}
}

// Try reads a question. After the last one the error is [io.EOF].
func (r *Reader) Try() (Try, error) {
	if _, err := r.r.Peek(1); errors.Is(err, io.EOF) {
		return Try{}, io.EOF
	}
	var t Try
	word, err := r.text("question")
	if err == nil && word != "try" {
		err = &Error{"question", fmt.Errorf("%q instead of \"try\"", word)}
	}
	var willing uint64
	if err == nil {
		willing, err = r.number("question", 1)
		t.Willing = willing == 1
	}
	if err == nil {
		t.System, err = r.word("system")
	}
	if err == nil {
		t.Drv, err = r.word("derivation")
	}
	if err == nil && path.Clean("/"+t.Drv) != t.Drv {
		err = &Error{"derivation", fmt.Errorf("%q is not an absolute path", t.Drv)}
	}
	if err == nil && !strings.HasSuffix(t.Drv, ".drv") {
		err = &Error{"derivation", fmt.Errorf("%q does not end in .drv", t.Drv)}
	}
	if err == nil {
		t.Features, err = list(r, "features", maxFeatures, r.word)
	}
	return t, err
}

// Job reads what follows when a question was answered with [Accept].
func (r *Reader) Job() (Job, error) {
	var j Job
	var err error
	if j.Inputs, err = list(r, "inputs", maxPaths, r.path); err == nil {
		j.Outputs, err = list(r, "outputs", maxOutputs, r.word)
	}
	return j, err
}

// Rest is what has not been read yet.
func (r *Reader) Rest() io.Reader { return r.r }

func (r *Reader) number(what string, limit uint64) (uint64, error) {
	n, err := wire.ReadUint64(r.r)
	if err != nil {
		return 0, failed(what, err)
	}
	if n > limit {
		return 0, &Error{what, fmt.Errorf("the number %d is more than %d", n, limit)}
	}
	return n, nil
}

// text reads a string. It takes no more memory than there are bytes.
func (r *Reader) text(what string) (string, error) {
	n, err := r.number(what, maxString)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if _, err := io.CopyN(&b, r.r, int64(n)); err != nil {
		return "", failed(what, err)
	}
	var padding [8]byte
	if _, err := io.ReadFull(r.r, padding[:-n&7]); err != nil {
		return "", failed(what, err)
	}
	if binary.LittleEndian.Uint64(padding[:]) != 0 {
		return "", &Error{what, errors.New("a string is not filled up with zeros")}
	}
	return b.String(), nil
}

// word reads a string that is the name of something.
func (r *Reader) word(what string) (string, error) {
	s, err := r.text(what)
	if err == nil && (s == "" || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f })) {
		err = &Error{what, fmt.Errorf("%q is not a name", s)}
	}
	return s, err
}

func (r *Reader) path(what string) (string, error) {
	s, err := r.text(what)
	if err == nil {
		if checkErr := storepath.Check(s); checkErr != nil {
			err = &Error{what, checkErr}
		}
	}
	return s, err
}

func list(r *Reader, what string, limit uint64, read func(string) (string, error)) ([]string, error) {
	n, err := r.number(what, limit)
	if err != nil {
		return nil, err
	}
	var items []string
	for range n {
		item, err := read(what)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

func failed(what string, err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &Error{what, err}
}
