package mountns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"vm-prebuild/storedb"
	"vm-prebuild/storedb/internal/mount"
)

// scratchPrefix begins the names of scratch directories.
const scratchPrefix = "nix-closure-exec-"

// rootsName is the name of our file of temporary roots. Such names are numbers
// of processes, and a Nix with the same number would take it for its own; no
// process has this one.
const rootsName = "4194305"

// scratch is the directory that has all that there is of a store but its
// closure. It is locked while it is in use, so that those which were left by a
// process that was killed are known.
type scratch struct {
	dir     string
	lock    *os.File // dir
	visible string   // root of the store, as the command sees it

	point *os.File // what the store's nix directory is mounted on; nil if it is not
	made  []string // directories made for that, parents first
	roots *os.File // temporary roots of the garbage collector
}

// root is the root of the store outside the namespace.
func (s *scratch) root() string { return filepath.Join(s.dir, "root") }

// newScratch makes a scratch directory in parent for a store that is to appear
// at visible, or where it is if that is empty, and removes what others have left.
func newScratch(parent, visible string) (*scratch, error) {
	// Nix wants no symbolic link on the way to a store.
	parent, err := filepath.EvalSymlinks(cmp.Or(parent, os.TempDir()))
	if err == nil {
		parent, err = filepath.Abs(parent)
	}
	if err != nil {
		return nil, fmt.Errorf("make a scratch directory: %w", err)
	}
	removeStale(parent)
	s, err := makeScratch(parent)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{filepath.Join(s.root(), "nix", "store"), s.view()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("make a scratch directory: %w", err), s.remove())
		}
	}
	s.visible = s.root()
	if visible != "" {
		if err := s.appearAt(visible); err != nil {
			return nil, errors.Join(err, s.remove())
		}
	}
	return s, nil
}

// view is the scratch directory of the view.
func (s *scratch) view() string { return filepath.Join(s.dir, "view") }

// makeScratch makes and locks a directory. Another process may take it for
// stale in the moment before it is locked; then all begins anew.
func makeScratch(parent string) (*scratch, error) {
	for {
		dir, err := os.MkdirTemp(parent, scratchPrefix)
		if err != nil {
			return nil, fmt.Errorf("make a scratch directory: %w", err)
		}
		lock, err := lockDir(dir)
		if err == nil {
			// Commands of another user than ours have no business in it, but Nix
			// may build as another user.
			if err := lock.Chmod(0o755); err != nil {
				return nil, errors.Join(fmt.Errorf("make a scratch directory: %w", err), lock.Close())
			}
			return &scratch{dir: dir, lock: lock}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("make a scratch directory: %w", err)
		}
	}
}

// lockDir locks a directory unless somebody else has, and makes sure that it is
// still there.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	locked, err := f.Stat()
	if err == nil {
		var found os.FileInfo
		if found, err = os.Lstat(dir); err == nil && !os.SameFile(locked, found) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// removeStale removes our user's scratch directories that nobody uses. What
// cannot be removed now is tried again by the next.
func removeStale(parent string) {
	dirs, err := filepath.Glob(filepath.Join(parent, scratchPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		lock, err := lockDir(dir)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(int(lock.Fd()), &st) == nil && int(st.Uid) == os.Geteuid() {
			_ = removeAll(dir)
		}
		lock.Close()
	}
}

// removeAll removes a directory in which directories may be read-only.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}

// appearAt has the store's nix directory mounted below root.
func (s *scratch) appearAt(root string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return fmt.Errorf("make a store: %w", err)
	}
	point := filepath.Join(root, "nix")
	if root != "/" {
		if err := checkEmpty(filepath.Join(root, "nix", "store")); err != nil {
			return err
		}
	}
	var missing []string
	for dir := point; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		err := os.Mkdir(missing[i], 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue // another of us was faster, and will remove it
		}
		if err != nil {
			return fmt.Errorf("make a mount point for the store: %w", err)
		}
		s.made = append(s.made, missing[i])
	}
	if s.point, err = os.OpenFile(point, unix.O_DIRECTORY, 0); err != nil {
		return fmt.Errorf("make a mount point for the store: %w", err)
	}
	if err := unix.Flock(int(s.point.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w", point, err)
	}
	if s.visible, err = filepath.EvalSymlinks(root); err != nil {
		return fmt.Errorf("make a store: %w", err)
	}
	return nil
}

// checkEmpty makes sure that nothing is hidden that somebody may look for.
func checkEmpty(store string) error {
	entries, err := os.ReadDir(store)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make a store: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() != ".links" {
			return &storedb.InputError{File: store, Reason: "this store is not empty, and would be hidden",
				Hint: "give a directory that does not exist, or none"}
		}
	}
	return nil
}

// setup is what the command's process has to do.
func (s *scratch) setup(o Options, paths []string) (setup, error) {
	from := o.From
	if from == "" {
		from = "/"
	}
	from, err := filepath.Abs(from)
	if err != nil {
		return setup{}, fmt.Errorf("open source store: %w", err)
	}
	out := setup{
		View: mount.View{
			Source: filepath.Join(from, "nix", "store"),
			Target: filepath.Join(s.root(), "nix", "store"), Scratch: s.view(),
		},
		Names:  strings.Join(baseNames(paths), "/"),
		Method: o.Method, Parent: os.Getpid(), UserNamespace: !mayMount(),
		ReadOnly: o.ReadOnly, PIDNamespace: o.PIDNamespace,
	}
	if out.Binds, err = accounts(s.dir); err != nil {
		return setup{}, err
	}
	if s.point != nil {
		out.Binds = append(out.Binds, bind{Source: filepath.Join(s.root(), "nix"), Target: filepath.Join(s.visible, "nix")})
	}
	return out, nil
}

// createState makes the state of the store. Its paths are roots of the garbage
// collector as long as this process lives: nobody could delete them anyway.
func (s *scratch) createState(ctx context.Context, o Options, paths []string) error {
	_, err := storedb.CreateState(ctx, storedb.StateOptions{
		Root: s.root(), ClosureInfo: o.ClosureInfo, Closure: o.Closure, From: o.From, DBImage: o.DBImage,
	})
	if err != nil {
		return err
	}
	name := filepath.Join(s.root(), "nix/var/nix/temproots", rootsName)
	if s.roots, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return fmt.Errorf("protect the closure from the garbage collector: %w", err)
	}
	if err := unix.Flock(int(s.roots.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("protect the closure from the garbage collector: %w", err)
	}
	if _, err := s.roots.WriteString(strings.Join(paths, "\x00") + "\x00"); err != nil {
		return fmt.Errorf("protect the closure from the garbage collector: %w", err)
	}
	return nil
}

// remove removes all that has been made.
func (s *scratch) remove() error {
	var errs []error
	// Mount points that another of us uses stay: removing one undoes the mount.
	if s.point == nil || unix.Flock(int(s.point.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		for i := len(s.made) - 1; i >= 0; i-- {
			err := os.Remove(s.made[i])
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) {
				errs = append(errs, err)
			}
		}
	}
	errs = append(errs, removeAll(s.dir))
	for _, f := range []*os.File{s.roots, s.point, s.lock} {
		if f != nil {
			f.Close()
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the scratch directory: %w", err)
	}
	return nil
}
