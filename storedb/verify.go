package storedb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// VerifyOptions says which store to verify.
type VerifyOptions struct {
	Store string // root of the store
	Jobs  int    // store paths to read at once; 0 or less means one for each CPU

	// Progress, if not nil, is called whenever a path has been read, one call at
	// a time. It must return soon: the verification waits for it.
	Progress func(Progress)
}

// Report is the outcome of a verification. The store is sound if there are no
// errors.
type Report struct {
	Paths       int           `json:"paths"`    // that are valid
	NarBytes    int64         `json:"narBytes"` // sizes of their archives, as registered
	Errors      int           `json:"errors"`   // findings of each severity
	Warnings    int           `json:"warnings"`
	Information int           `json:"information"`
	Findings    []Finding     `json:"findings"` // most severe first, then by path
	Total       time.Duration `json:"totalNs"`
}

// Finding is something noteworthy about a store.
type Finding struct {
	Severity Severity `json:"severity"`
	Kind     Kind     `json:"kind"`
	Path     string   `json:"path,omitempty"` // store path; empty if it is about none
	Detail   string   `json:"detail"`
}

// Severity is how bad a finding is.
type Severity string

// The severities. An error means that something is lost or wrong. A warning is
// about what Nix does otherwise but works with. Information is about what may be
// as it should.
const (
	SeverityError       Severity = "error"
	SeverityWarning     Severity = "warning"
	SeverityInformation Severity = "information"
)

// Kind is what a finding is about.
type Kind string

// The kinds of findings.
const (
	KindDatabase  Kind = "database"  // error: SQLite finds the database damaged, or a row has what no Nix writes
	KindCycle     Kind = "cycle"     // error: references of different paths lead in a circle
	KindOutputs   Kind = "outputs"   // error: registered outputs of a derivation are not those in its file
	KindMissing   Kind = "missing"   // error: a valid path does not exist
	KindUnread    Kind = "unread"    // error: a valid path cannot be read, or holds what no store path may
	KindModified  Kind = "modified"  // error: hash or size are not the registered ones
	KindReference Kind = "reference" // error: the contents refer to a valid path, unknown to the database; information if they are content-addressed
	KindUnhashed  Kind = "unhashed"  // warning: hash or size are not registered
	KindMetadata  Kind = "metadata"  // warning: modes, times or owners are not those that Nix gives
	KindUnused    Kind = "unused"    // information: a registered reference is not in the contents
	KindStray     Kind = "stray"     // information: an entry of the store directory that is not valid
)

// severities are those of all kinds. A finding of KindReference may be less.
var severities = map[Kind]Severity{
	KindDatabase: SeverityError, KindCycle: SeverityError, KindOutputs: SeverityError,
	KindMissing: SeverityError, KindUnread: SeverityError, KindModified: SeverityError, KindReference: SeverityError,
	KindUnhashed: SeverityWarning, KindMetadata: SeverityWarning,
	KindUnused: SeverityInformation, KindStray: SeverityInformation,
}

// VerifyStore compares the files of a store, the database, and what both say of
// each other: all that nix-store --verify --check-contents does but for the
// links that Nix optimises stores with, and also references, outputs of
// derivations, and metadata. Each file is read once, and nothing is changed.
//
// The store may be in use; the garbage collector waits meanwhile. What is wrong
// in the store is in the report; the error is about what kept it from being
// verified, and an *InputError if there is no store.
func VerifyStore(ctx context.Context, o VerifyOptions) (Report, error) {
	start := time.Now()
	if o.Jobs <= 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	v := &verifier{VerifyOptions: o}
	if err := v.run(ctx); err != nil {
		return Report{}, err
	}
	report := v.report()
	report.Total = time.Since(start)
	return report, nil
}

// verifier is one verification.
type verifier struct {
	VerifyOptions
	store    *os.File   // the directory of store paths
	infos    []PathInfo // of all valid paths
	outputs  map[string][]output
	narBytes int64

	mu       sync.Mutex
	findings []Finding
}

func (v *verifier) run(ctx context.Context) error {
	unlock, err := v.lockCollector(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	err = readStoreDatabase(ctx, v.Store, func(db *database) error { return v.readDatabase(ctx, db) })
	if err != nil {
		return err
	}
	dir := filepath.Join(v.Store, storeDir)
	if v.store, err = os.Open(dir); errors.Is(err, fs.ErrNotExist) {
		return &InputError{File: dir, Reason: "no such directory", Hint: "give the root of a store", Err: err}
	} else if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	defer v.store.Close()
	if err := v.readPaths(ctx); err != nil {
		return err
	}
	return v.findStrays()
}

// lockCollector keeps the garbage collector waiting, as far as the user may.
func (v *verifier) lockCollector(ctx context.Context) (unlock func(), err error) {
	f, err := os.Open(filepath.Join(v.Store, gcLockFile))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock store: %w", err)
	}
	p := patience{report: func(what string) { v.Progress(Progress{Phase: PhaseLock, Waiting: what}) }}
	err = p.wait(ctx, "the garbage collector", func() (bool, error) { return tryLock(int(f.Fd()), unix.LOCK_SH) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock store: %w", err), f.Close())
	}
	return func() { f.Close() }, nil
}

// find notes a finding.
func (v *verifier) find(kind Kind, path, format string, args ...any) {
	v.add(Finding{severities[kind], kind, path, fmt.Sprintf(format, args...)})
}

func (v *verifier) add(f Finding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.findings = append(v.findings, f)
}

// findStrays looks for entries of the store directory that are not valid.
func (v *verifier) findStrays() error {
	names, err := tree.Names(int(v.store.Fd()))
	if err != nil {
		return fmt.Errorf("read store: %w", err)
	}
	valid := make(map[string]bool, len(v.infos))
	for i := range v.infos {
		valid[baseName(v.infos[i].Path)] = true
	}
	for _, name := range names {
		// Nix keeps what it has hard-linked files to in .links.
		if !valid[name] && name != ".links" {
			v.find(KindStray, StoreDir+"/"+name, "not valid: it is being made, or left over, and garbage to Nix")
		}
	}
	return nil
}

func (v *verifier) report() Report {
	order := []Severity{SeverityError, SeverityWarning, SeverityInformation}
	slices.SortFunc(v.findings, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(slices.Index(order, a.Severity), slices.Index(order, b.Severity)),
			strings.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Detail, b.Detail))
	})
	r := Report{Paths: len(v.infos), NarBytes: v.narBytes, Findings: append([]Finding{}, v.findings...)}
	for _, f := range v.findings {
		switch f.Severity {
		case SeverityError:
			r.Errors++
		case SeverityWarning:
			r.Warnings++
		case SeverityInformation:
			r.Information++
		}
	}
	return r
}
