package warm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Entry is a state as a [Store] lists it.
type Entry struct {
	Key     string    `json:"key"`
	Machine string    `json:"machine"`
	Ready   string    `json:"readyPoint"`
	Saved   time.Time `json:"saved"`
	Used    time.Time `json:"used"`              // last start from it
	Bytes   int64     `json:"bytes"`             // on the disk
	Problem string    `json:"problem,omitempty"` // why nothing can start from it; one line

	damaged bool // nothing ever can
}

// List returns what the store has, what was used last first. It reads manifests
// only; see Verify.
func (s Store) List() ([]Entry, error) {
	found, err := os.ReadDir(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var all []Entry
	for _, f := range found {
		dir := filepath.Join(s.Dir, f.Name())
		info, err := os.Stat(dir)
		if errors.Is(err, os.ErrNotExist) || err == nil && !info.IsDir() || !keyPattern.MatchString(f.Name()) || foreign(dir) {
			continue // removed meanwhile, or no state
		} else if err != nil {
			return nil, err
		}
		e := Entry{Key: f.Name(), Used: info.ModTime(), Bytes: diskBytes(dir)}
		m, _, err := readManifest(filepath.Join(dir, manifestFile))
		if err == nil {
			e.Machine, e.Ready, e.Saved = valueOf(m.Inputs, "machine"), valueOf(m.Inputs, "ready point"), m.Saved
			_, err = m.lookAll(dir)
		}
		if err != nil {
			var damage *damageError
			e.damaged = errors.Is(err, os.ErrNotExist) || errors.As(err, &damage)
			e.Problem = firstLine(err)
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.Key, b.Key)) })
	return all, nil
}

// foreign says whether a directory has something that no state has.
func foreign(dir string) bool {
	entries, err := os.ReadDir(dir)
	return err != nil || slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		switch e.Name() {
		case ramFile, diskFile, devicesFile, manifestFile, sealFile:
			return false
		}
		return !strings.HasPrefix(e.Name(), newPrefix)
	})
}

// diskBytes is what a directory's files take on the disk; holes take nothing.
func diskBytes(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(path, &st) == nil {
			sum += st.Blocks * 512
		}
		return nil // what is gone takes nothing
	})
	return sum
}

// Verify reads all of a state and returns an error when it is not what was saved.
func (s Store) Verify(ctx context.Context, key string) error {
	dir := filepath.Join(s.Dir, key)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) || filepath.Base(key) != key {
		return fmt.Errorf("%s has no state %q", s.Dir, key)
	}
	m, _, err := readManifest(filepath.Join(dir, manifestFile))
	switch {
	case err != nil:
		return err
	case keyOf(m.Inputs) != key:
		return damaged("%s is the state of another machine", dir)
	}
	if _, err := m.lookAll(dir); err != nil {
		return err
	}
	return m.verify(ctx, dir)
}

// Limits say what a store may keep.
type Limits struct {
	Bytes int64         // on the disk; negative for any number
	Age   time.Duration // since a state was used; 0 for any
}

// Collect removes what is damaged, what is too old, and then what was not used for
// longest until the rest is small enough; and what savers that have died left. States
// that a running test has started from stay, and so does all that is no state. It
// returns what it removed.
func (s Store) Collect(l Limits) (removed []Entry, err error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	if root, err := filepath.EvalSymlinks(s.Dir); err == nil {
		sweep(root)
	}
	var kept int64
	for _, e := range all {
		tooOld := l.Age > 0 && time.Since(e.Used) > l.Age
		if !e.damaged && !tooOld && (l.Bytes < 0 || kept+e.Bytes <= l.Bytes) {
			kept += e.Bytes
			continue
		}
		dir := filepath.Join(s.Dir, e.Key)
		identity, err := os.Lstat(dir)
		if err == nil {
			err = s.remove(&state{dir: dir, identity: identity}, e.Key)
		}
		switch {
		case errors.Is(err, errInUse):
			kept += e.Bytes
			continue
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return removed, err
		}
		removed = append(removed, e)
	}
	return removed, nil
}
