package storedb

import (
	"fmt"

	"github.com/nix-community/go-nix/pkg/nixbase32"
)

// InputError says that what the caller gave is at fault: a closureInfo file, a
// source store that lacks a path, a destination that cannot be one. The
// destination is as it was before.
type InputError struct {
	File   string // the file or directory at fault
	Line   int    // line in File, from 1; 0 if the error is about no single line
	Reason string // what is wrong with it
	Hint   string // what to do about it; may be empty
	Err    error  // the cause; may be nil
}

func (e *InputError) Error() string {
	s := e.File
	if e.Line > 0 {
		s = fmt.Sprintf("%s:%d", s, e.Line)
	}
	s += ": " + e.Reason
	if e.Hint != "" {
		s += "\nhint: " + e.Hint
	}
	return s
}

func (e *InputError) Unwrap() error { return e.Err }

// ExitCode is that of wrong usage or configuration.
func (e *InputError) ExitCode() int { return 2 }

// MethodError says that a method cannot bring the files of this source into this
// store. The destination is as it was before.
type MethodError struct {
	Method  Method
	Reason  string // why it cannot
	Instead Method // one that can
	Err     error  // the cause; may be nil
}

func (e *MethodError) Error() string {
	s := fmt.Sprintf("method %s: %s", e.Method, e.Reason)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s\nhint: use method %s", s, e.Instead)
}

func (e *MethodError) Unwrap() error { return e.Err }

// ExitCode is that of wrong usage or configuration.
func (e *MethodError) ExitCode() int { return 2 }

func (i *importer) methodError(instead Method, reason string, err error) error {
	return &MethodError{Method: i.Method, Reason: reason, Instead: instead, Err: err}
}

// VerifyError says that the files of a store path are not the ones that its
// registration describes.
type VerifyError struct {
	Path                string // the store path
	WantHash, GotHash   Hash   // both zero if only sizes have been compared
	WantBytes, GotBytes int64  // narSize
}

func (e *VerifyError) Error() string {
	if e.WantHash == e.GotHash {
		return fmt.Sprintf("%s was modified: its archive has %d bytes, registered are %d\n%s", e.Path, e.GotBytes, e.WantBytes, repairHint)
	}
	return fmt.Sprintf("%s was modified: its contents have hash %s (%d bytes), registered is %s (%d bytes)\n%s",
		e.Path, e.GotHash, e.GotBytes, e.WantHash, e.WantBytes, repairHint)
}

const repairHint = "hint: repair the source store with 'nix-store --verify --check-contents --repair'"

// ExitCode is that of a failed check.
func (e *VerifyError) ExitCode() int { return 1 }

// String is the hash as closureInfo writes it.
func (h Hash) String() string { return "sha256:" + nixbase32.EncodeToString(h[:]) }
