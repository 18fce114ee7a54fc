package warm

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/machine"
)

// Store keeps states in a directory, one a subdirectory whose name is the key.
// Any number of processes may use it at once: a state appears, and goes, whole.
type Store struct {
	Dir string // made when something is saved
}

// DefaultDir is where states are kept: $XDG_CACHE_HOME/vm-prebuild/warm, or in the
// directory of a Nix build.
func DefaultDir() (string, error) {
	cache, err := os.UserCacheDir()
	if build := os.Getenv("NIX_BUILD_TOP"); build != "" && os.Getenv("XDG_CACHE_HOME") == "" && !exists(os.Getenv("HOME")) {
		// Whoever builds has no home.
		cache, err = build, nil
	}
	if err != nil {
		return "", fmt.Errorf("directory for the states of machines: %w\nhint: name one with --warm-dir", err)
	}
	return filepath.Join(cache, "vm-prebuild", "warm"), nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// keyPattern is what keys look like.
var keyPattern = regexp.MustCompile(`^[^/]+-[0-9a-f]{32}$`)

// keyOf is the name of the state that fits these inputs.
func keyOf(inputs []machine.Input) string {
	sum := sha256.New()
	name := "machine"
	for _, i := range inputs {
		fmt.Fprintf(sum, "%d:%s%d:%s", len(i.Name), i.Name, len(i.Value), i.Value)
		if i.Name == "machine" {
			name = i.Value
		}
	}
	return name + "-" + hex.EncodeToString(sum.Sum(nil))[:32]
}

// state is a state that has been opened.
type state struct {
	dir      string
	identity os.FileInfo // of dir
	manifest manifest
	outsides map[string]outside
}

func filesIn(dir string) machine.StateFiles {
	return machine.StateFiles{
		RAM:     filepath.Join(dir, ramFile),
		Disk:    filepath.Join(dir, diskFile),
		Devices: filepath.Join(dir, devicesFile),
	}
}

func (s *state) files() machine.StateFiles { return filesIn(s.dir) }

// errNoState says that there is no state of a key.
var errNoState = errors.New("there is no saved state of it")

// open returns the state of a key, whose files are what was saved. When it is
// damaged the error is a *damageError, and the state is there for remove.
func (s Store) open(ctx context.Context, key string) (*state, error) {
	root, err := filepath.EvalSymlinks(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoState
	} else if err != nil {
		return nil, err
	}
	st := &state{dir: filepath.Join(root, key)}
	st.identity, err = os.Lstat(st.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errNoState
	} else if err != nil {
		return nil, err
	}
	m, sum, err := readManifest(filepath.Join(st.dir, manifestFile))
	if errors.Is(err, os.ErrNotExist) {
		return st, damaged("%w", err)
	} else if err != nil {
		return st, err
	}
	st.manifest = m
	if keyOf(m.Inputs) != key {
		return st, damaged("%s is the state of another machine", st.dir)
	}
	if st.outsides, err = m.lookAll(st.dir); err != nil {
		return st, err
	}
	if st.sealed(sum) {
		st.touch()
		return st, nil
	}
	if err := settle(ctx, st.outsides); err != nil {
		return st, err
	}
	if err := m.verify(ctx, st.dir); err != nil {
		return st, err
	}
	if err := st.unchanged(); err != nil {
		return st, err
	}
	// Without it the next one has to look again, no more.
	_ = writeSeal(st.dir, seal{sum, st.outsides})
	st.touch()
	return st, nil
}

// touch notes that the state is used; others may only be able to read it.
func (s *state) touch() { _ = os.Chtimes(s.dir, time.Time{}, time.Now()) }

// sealed says whether the files were read before and have not changed since.
func (s *state) sealed(sum string) bool {
	text, err := readBounded(filepath.Join(s.dir, sealFile), 1<<16)
	if err != nil {
		return false
	}
	var old seal
	return json.Unmarshal(text, &old) == nil && old.Manifest == sum && maps.Equal(old.Files, s.outsides)
}

// unchanged returns an error when a file has changed since the state was opened.
func (s *state) unchanged() error {
	now, err := s.manifest.lookAll(s.dir)
	if err == nil && !maps.Equal(now, s.outsides) {
		err = damaged("%s was changed while a machine was started from it", s.dir)
	}
	return err
}

func writeSeal(dir string, s seal) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, sealFile), text)
}

// newPrefix begins the names of files that are being written.
const newPrefix = ".new-"

// writeFile writes a file whole or not at all.
func writeFile(path string, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), newPrefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// draftPrefix begins the names of directories that are no states: yet, or any
// more.
const draftPrefix = ".draft-"

// hold keeps a state from being removed until what it returns is closed.
func (s *state) hold() (*os.File, error) {
	f, err := lock(s.dir, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !os.SameFile(info, s.identity) {
		return nil, errors.Join(err, fmt.Errorf("%s has just been replaced", s.dir), f.Close())
	}
	return f, nil
}

// remove removes a state, unless another has taken its place. It is an errInUse
// that a machine has started from it: such a machine may boot from its disk, later.
func (s Store) remove(st *state, key string) error {
	f, err := lock(st.dir, unix.LOCK_EX)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("removing the state %s: %w", key, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !os.SameFile(info, st.identity) {
		return err
	}
	gone := filepath.Join(filepath.Dir(st.dir), draftPrefix+rand.Text())
	if err := os.Rename(st.dir, gone); err != nil {
		return fmt.Errorf("removing the state %s: %w", key, err)
	}
	return os.RemoveAll(gone)
}

// draft is a state that is being made.
type draft struct {
	dir, key string
	lock     *os.File // of dir: locked as long as someone works on it
}

// draft makes a directory for a state, and removes those of processes that have
// died.
func (s Store) draft(key string) (*draft, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	root, err := filepath.EvalSymlinks(s.Dir)
	if err != nil {
		return nil, err
	}
	sweep(root)
	for {
		d := &draft{dir: filepath.Join(root, draftPrefix+rand.Text()), key: key}
		// Guests' memories may hold secrets.
		if err := os.Mkdir(d.dir, 0o700); err != nil {
			return nil, err
		}
		d.lock, err = lock(d.dir, unix.LOCK_EX)
		// Others may have come between, and swept it away.
		if err == nil || !errors.Is(err, errInUse) && !errors.Is(err, os.ErrNotExist) {
			return d, err
		}
	}
}

// errInUse says that someone else has a lock of a directory.
var errInUse = errors.New("it is in use")

// lock takes a directory, which is still there then, at once or not at all.
func lock(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	switch err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = fmt.Errorf("%s: %w", dir, errInUse)
	case err != nil:
		err = fmt.Errorf("locking %s: %w", dir, err)
	default:
		var there, here os.FileInfo
		if there, err = os.Lstat(dir); err == nil {
			here, err = f.Stat()
		}
		if err == nil && !os.SameFile(there, here) {
			err = fmt.Errorf("%s: %w", dir, os.ErrNotExist)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes drafts that nobody works on.
func sweep(root string) {
	entries, err := os.ReadDir(root)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), draftPrefix) {
			continue
		}
		dir := filepath.Join(root, e.Name())
		if f, err := lock(dir, unix.LOCK_EX); err == nil {
			_ = os.RemoveAll(dir)
			f.Close()
		}
	}
}

func (d *draft) files() machine.StateFiles { return filesIn(d.dir) }

// discard removes a draft that was not committed.
func (d *draft) discard() {
	if d.lock != nil {
		_ = os.RemoveAll(d.dir)
		d.lock.Close()
		d.lock = nil
	}
}

// commit makes the draft the state of its key.
func (d *draft) commit(ctx context.Context, m manifest) error {
	outsides, err := d.record(ctx, &m)
	if err != nil {
		return err
	}
	text, err := m.encode()
	if err != nil {
		return err
	}
	return d.publish(text, outsides)
}

// record notes the files of the draft in a manifest; they are on the disk then.
func (d *draft) record(ctx context.Context, m *manifest) (map[string]outside, error) {
	m.Files = map[string]fileRecord{}
	for _, name := range []string{ramFile, diskFile, devicesFile} {
		size, err := flush(filepath.Join(d.dir, name))
		if name == diskFile && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m.Files[name] = fileRecord{Size: size}
	}
	outsides, err := m.lookAll(d.dir)
	if err != nil {
		return nil, err
	}
	if err := settle(ctx, outsides); err != nil {
		return nil, err
	}
	for name, record := range m.Files {
		if record.Digest, err = digestOf(ctx, filepath.Join(d.dir, name)); err != nil {
			return nil, err
		}
		m.Files[name] = record
	}
	if now, err := m.lookAll(d.dir); err != nil || !maps.Equal(now, outsides) {
		return nil, errors.Join(err, fmt.Errorf("%s was changed while it was saved", d.dir))
	}
	return outsides, nil
}

// publish adds the manifest and gives the state its name. When another process has
// been quicker, its state stays.
func (d *draft) publish(manifest []byte, outsides map[string]outside) error {
	if err := writeFile(filepath.Join(d.dir, manifestFile), manifest); err != nil {
		return err
	}
	var e envelope
	if err := json.Unmarshal(manifest, &e); err != nil {
		return err
	}
	if err := writeSeal(d.dir, seal{e.SHA256, outsides}); err != nil {
		return err
	}
	if err := d.lock.Sync(); err != nil {
		return err
	}
	root := filepath.Dir(d.dir)
	err := os.Rename(d.dir, filepath.Join(root, d.key))
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil // discard removes the draft
	}
	if err != nil {
		return err
	}
	d.lock.Close()
	d.lock = nil
	return syncDir(root)
}

// flush writes a file to the disk, so that it is not there with other content after
// a power failure, and returns its size.
func flush(path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
