package storedb

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// Verify says what is checked of the files that have been placed.
type Verify string

const (
	// VerifyNone takes the source for what its registration says.
	VerifyNone Verify = "none"
	// VerifySize compares the size of the archive of each new path, which needs
	// a look at its directories but not at the contents of its files.
	VerifySize Verify = "size"
	// VerifyHash reads each new path in the destination and compares the hash
	// and size of its archive with the registered ones.
	VerifyHash Verify = "hash"
)

// Files supplies the contents of store paths. Its method is called by as many
// goroutines at once as the import has jobs.
type Files interface {
	// Place makes what info describes as name in the open directory dir, where
	// there is nothing of that name, with canonical metadata: modes 0444 and
	// 0555, modification time 1. It has compared the contents with info.NarHash.
	// After an error, what it has made is left to the caller to remove.
	Place(ctx context.Context, info PathInfo, dir *os.File, name string) error
}

// ExpectingFiles are Files that want to know what they will be asked for.
type ExpectingFiles interface {
	Files
	// Expect is called once, before Place, with what Place will be called for,
	// in that order: what is missing in the store, in the order of the closure.
	Expect(infos []PathInfo)
}

// Options says what to import, from where, and into which store.
type Options struct {
	Closure *Closure // what to import
	Store   string   // root of the store to import into; made if missing

	From  string // root of the store that has the files; empty means /
	Files Files  // if not nil, has the files instead of From

	Method       Method // how files come from From; empty means MethodAuto
	Verify       Verify // empty means VerifyNone; Files check what they place themselves
	Jobs         int    // workers; 0 or less means one for each CPU. Where reflinks are made, btrfs is served by one
	DryRun       bool   // only find out what an import would do
	RegisterOnly bool   // the files are in the store already, with whatever metadata they have
	Reregister   bool   // overwrite what is registered of valid paths, as nix-store --load-db does

	// Locked says that somebody who waits for this import has locked the paths that
	// are missing, as Nix has when it asks a build hook for them: locking them
	// again would never end.
	Locked bool

	// GCRoot, if not empty, names a directory below nix/var/nix/gcroots that
	// gets links to the paths of the closure that no other refers to, and so
	// keeps all of it from the garbage collector. One that an import has made is
	// replaced.
	GCRoot string

	// DBImage, if not empty, is a directory made by [WriteImage], which an empty
	// store gets its database from.
	DBImage string

	// Progress, if not nil, is called at the beginning of each phase and
	// whenever a path has been dealt with, one call at a time. It must return
	// soon: the import waits for it.
	Progress func(Progress)
}

// Phase is a step of an import.
type Phase string

// The phases, in their order; only waiting may come again. An import that finds
// nothing to do ends after the first.
const (
	PhaseLock     Phase = "lock"     // waiting for others who use the store
	PhasePlace    Phase = "place"    // copying files
	PhaseVerify   Phase = "verify"   // hashing them; with VerifyHash only
	PhaseRegister Phase = "register" // writing the database, or what is left of it when the files are there
)

// Progress is how far a phase has come.
type Progress struct {
	Phase      Phase
	Paths      int   // store paths dealt with
	TotalPaths int   // store paths that are not in the store yet
	Bytes      int64 // sizes of the archives of Paths
	TotalBytes int64 // and of TotalPaths

	// Waiting, if not empty, says what others hold that has been waited for for
	// a second. Nothing else is set then but Phase, which is PhaseLock.
	Waiting string
}

// Summary is what an import did, or what it would do.
type Summary struct {
	Paths        int   `json:"paths"`        // in the closure
	AlreadyValid int   `json:"alreadyValid"` // of these, in the store before
	Placed       int   `json:"placed"`       // of these, new
	Resumed      int   `json:"resumed"`      // of the new ones, completed by an interrupted import
	NarBytes     int64 `json:"narBytes"`     // sizes of the archives of the new ones

	// Files of the new paths, by how their contents came to be there.
	Reflinked  int64 `json:"reflinkedFiles"`
	Copied     int64 `json:"copiedFiles"`
	HardLinked int64 `json:"hardLinkedFiles"` // to another file of this import, or with MethodHardLink to the source

	Method Method `json:"method"` // as in Options, or which MethodAuto has taken for all of the paths
	DryRun bool   `json:"dryRun"` // nothing was done

	// How long the phases took, and all of it, in nanoseconds.
	Place    time.Duration `json:"placeNs"`
	Verify   time.Duration `json:"verifyNs"`
	Register time.Duration `json:"registerNs"`
	Total    time.Duration `json:"totalNs"`
}

// withDefaults checks o and fills in what was left empty.
func (o Options) withDefaults() (Options, error) {
	if o.Closure == nil {
		return o, errors.New("import: no closure given")
	}
	if o.From == "" {
		o.From = "/"
	}
	if o.Method == "" {
		o.Method = MethodAuto
	}
	if o.Verify == "" {
		o.Verify = VerifyNone
	}
	if o.Jobs <= 0 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if !slices.Contains(methods[:], o.Method) {
		return o, fmt.Errorf("import: unknown method %q", o.Method)
	}
	if !slices.Contains([]Verify{VerifyNone, VerifySize, VerifyHash}, o.Verify) {
		return o, fmt.Errorf("import: unknown verification %q", o.Verify)
	}
	if o.Store == "" {
		return o, errors.New("import: no store given")
	}
	if o.RegisterOnly && o.Files != nil {
		return o, errors.New("import: files can be supplied, or be in the store already, but not both")
	}
	if o.GCRoot != "" {
		if err := checkGCRootName(o.GCRoot); err != nil {
			return o, err
		}
	}
	var err error
	if o.Store, err = filepath.Abs(o.Store); err != nil {
		return o, fmt.Errorf("import: %w", err)
	}
	return o, nil
}
