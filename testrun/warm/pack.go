package warm

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/accel"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/warm/packed"
)

// A packed state is a directory that is called like the state and has each of its
// files compressed, by package packed, and the manifest of the state as it is, in
// another file of the same name. It has nothing of this host, and no times but that
// of the save: from the same state comes the same directory.

// packing is the version of the format of packed states.
const packing = 1

// packedSuffix ends the names of compressed files.
const packedSuffix = ".zst"

// packedEnvelope is what is in the manifest's file of a packed state.
type packedEnvelope struct {
	Packing int             `json:"packing"`
	State   json.RawMessage `json:"state"` // the manifest's file of the state, byte by byte
}

// HostBoundError says that a state is of use on hosts with one kind of CPU only,
// and that this is not the place for it.
type HostBoundError struct{ Reason string }

func (e *HostBoundError) Error() string { return e.Reason }

// hostCPU is the CPU of the only hosts that a state is for; "" for all.
func (m manifest) hostCPU() string { return valueOf(m.Inputs, machine.HostCPUInput) }

// PackOptions say how a state is packed.
type PackOptions struct {
	// HostBound packs states, too, that are of use on hosts with this CPU only. They
	// are refused on others.
	HostBound bool
	Progress  func(done, of int64) // of bytes; may be nil
}

// Packed says what packing a state came to.
type Packed struct {
	Key   string `json:"key"`
	There bool   `json:"there"` // it had been packed before
	// Bytes is what the state takes on the disk, of which a guest's memory is almost
	// all, PackedBytes what it takes packed.
	Bytes       int64 `json:"bytes"`
	PackedBytes int64 `json:"packedBytes"`
}

// Pack puts a state into a directory of packed states, unless that has it. The
// directory is made when it is not there.
func (s Store) Pack(ctx context.Context, key, dir string, o PackOptions) (Packed, error) {
	p := Packed{Key: key}
	st, err := s.open(ctx, key)
	if errors.Is(err, errNoState) {
		return p, fmt.Errorf("%s has no state %q", s.Dir, key)
	} else if err != nil {
		return p, err
	}
	if cpu := st.manifest.hostCPU(); cpu != "" && !o.HostBound {
		return p, &HostBoundError{fmt.Sprintf("%s ran under KVM, and its state is of use on this host only, whose CPU is %s\nhint: save it with --accel tcg", key, cpu)}
	}
	text, err := readBounded(filepath.Join(st.dir, manifestFile), maxManifest)
	if err != nil {
		return p, err
	}
	p.Bytes = diskBytes(st.dir)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return p, err
	}
	target := filepath.Join(dir, key)
	// Another one of that key, saved elsewhere, is as good.
	if _, _, err := readPacked(target); err == nil {
		p.There, p.PackedBytes = true, diskBytes(target)
		return p, nil
	}
	draft := filepath.Join(dir, draftPrefix+rand.Text())
	if err := os.Mkdir(draft, 0o777); err != nil {
		return p, err
	}
	defer os.RemoveAll(draft)
	if err := st.pack(ctx, draft, o.Progress); err != nil {
		return p, fmt.Errorf("packing %s: %w", key, err)
	}
	if text, err = json.Marshal(packedEnvelope{packing, text}); err != nil {
		return p, err
	}
	if err := os.WriteFile(filepath.Join(draft, manifestFile), text, 0o666); err != nil { //nolint:gosec // who may read a share decides its umask
		return p, err
	}
	if err := st.unchanged(); err != nil {
		return p, err
	}
	p.PackedBytes = diskBytes(draft)
	return p, replace(draft, target)
}

// pack compresses the files of a state into a directory.
func (s *state) pack(ctx context.Context, dir string, progress func(done, of int64)) error {
	var before int64
	all := s.manifest.size()
	for _, name := range slices.Sorted(maps.Keys(s.manifest.Files)) {
		tell := func(done int64) {
			if progress != nil {
				progress(before+done, all)
			}
		}
		if err := packFile(ctx, filepath.Join(dir, name+packedSuffix), filepath.Join(s.dir, name), tell); err != nil {
			return err
		}
		before += s.manifest.Files[name].Size
	}
	return nil
}

func packFile(ctx context.Context, dst, src string, progress func(int64)) error {
	in, err := openFile(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := packed.Compress(ctx, out, in, progress); err != nil {
		return err
	}
	return errors.Join(out.Sync(), out.Close())
}

// replace gives a directory a name, of which another may have to give way.
func replace(draft, target string) error {
	err := os.Rename(draft, target)
	if !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	old := draft + "-old"
	if err := os.Rename(target, old); err != nil {
		return err
	}
	defer os.RemoveAll(old)
	return os.Rename(draft, target)
}

// openFile opens a file, which must not be anything else.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, damaged("%s is a symbolic link", path)
	} else if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, damaged("%s is not a file", path))
	}
	return f, nil
}

// ListPacked returns the keys of what is packed in a directory.
func ListPacked(dir string) (keys []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			keys = append(keys, e.Name())
		}
	}
	return keys, err
}

// readPacked reads the manifest of a packed state, and the text of the state's own.
func readPacked(dir string) (m manifest, text []byte, err error) {
	if info, err := os.Lstat(dir); err != nil {
		return m, nil, err
	} else if !info.IsDir() {
		return m, nil, damaged("%s is not a directory", dir)
	}
	path := filepath.Join(dir, manifestFile)
	if text, err = readBounded(path, 2*maxManifest); err != nil {
		return m, nil, err
	}
	var e packedEnvelope
	if err := json.Unmarshal(text, &e); err != nil {
		return m, nil, damaged("%s: %w", path, err)
	}
	if e.Packing != packing {
		return m, nil, damaged("%s has the packing %d; this program knows %d", path, e.Packing, packing)
	}
	if m, _, err = parseManifest(path, e.State); err != nil {
		return m, nil, err
	}
	// The name is what it is asked for by, and looked for in the cache.
	if key := keyOf(m.Inputs); key != filepath.Base(dir) {
		return m, nil, damaged("%s is the state of another machine", dir)
	}
	return m, e.State, nil
}

// Unpack makes the state of a key from what is packed in a directory, unless it is
// there already. It is there then as it was saved, or not at all.
func (s Store) Unpack(ctx context.Context, dir, key string) (there bool, err error) {
	if filepath.Base(key) != key {
		return false, fmt.Errorf("%q is not the name of a state", key)
	}
	old, err := s.open(ctx, key)
	var damage *damageError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &damage):
		if err := s.remove(old, key); err != nil {
			return false, err
		}
	case !errors.Is(err, errNoState):
		return false, err
	}
	return false, s.unpack(ctx, dir, key)
}

func (s Store) unpack(ctx context.Context, dir, key string) error {
	from := filepath.Join(dir, key)
	m, text, err := readPacked(from)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no packed state %q", dir, key)
	} else if err != nil {
		return err
	}
	if cpu := m.hostCPU(); cpu != "" {
		if here, err := accel.HostCPU(); err != nil || here != cpu {
			return errors.Join(err, &HostBoundError{fmt.Sprintf("%s was saved on a host whose CPU is %s, and is of use on such hosts only", from, cpu)})
		}
	}
	d, err := s.draft(key)
	if err != nil {
		return err
	}
	defer d.discard()
	if err := m.fitsInto(d.dir); err != nil {
		return fmt.Errorf("unpacking %s: %w", from, err)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		if err := unpackFile(ctx, filepath.Join(d.dir, name), filepath.Join(from, name+packedSuffix), m.Files[name].Size); err != nil {
			return err
		}
	}
	var found manifest
	outsides, err := d.record(ctx, &found)
	if err != nil {
		return err
	}
	for name, f := range m.Files {
		if found.Files[name] != f {
			return damaged("%s is damaged: its content is not what was saved", filepath.Join(from, name+packedSuffix))
		}
	}
	return d.publish(text, outsides)
}

// fitsInto returns an error when a directory may not have the space for the files.
// They are sparse, but whoever packed them may have said so only.
func (m manifest) fitsInto(dir string) error {
	var there unix.Statfs_t
	if err := unix.Statfs(dir, &there); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	free := int64(there.Bavail) * there.Bsize
	for _, f := range m.Files {
		if free -= f.Size; free < 0 || f.Size < 0 {
			return fmt.Errorf("its files have %d MiB, and there are only %d MiB free in %s", m.size()>>20, int64(there.Bavail)*there.Bsize>>20, filepath.Dir(dir))
		}
	}
	return nil
}

func (m manifest) size() (sum int64) {
	for _, f := range m.Files {
		sum += f.Size
	}
	return sum
}

func unpackFile(ctx context.Context, dst, src string, size int64) error {
	in, err := openFile(src)
	if errors.Is(err, fs.ErrNotExist) {
		return damaged("%s is missing", src)
	} else if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	err = packed.Decompress(ctx, out, in, size)
	var corrupt *packed.CorruptError
	if errors.As(err, &corrupt) {
		return damaged("%s is damaged: %w", src, err)
	} else if err != nil {
		return fmt.Errorf("unpacking %s: %w", src, err)
	}
	return out.Close()
}

// unpackWait is how long a state is waited for that another process unpacks, before
// it is unpacked once more.
const unpackWait = 2 * time.Minute

// fetch unpacks the state of a key from the first of the directories that has it in
// good order; errNoState says that none has it. Of several processes one unpacks, and
// the others wait for it.
func (s Store) fetch(ctx context.Context, key string, dirs []string) (from string, err error) {
	dirs = slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool {
		_, err := os.Lstat(filepath.Join(dir, key))
		return err != nil
	})
	if len(dirs) == 0 {
		return "", errNoState
	}
	unlock, err := s.claim(ctx, key)
	if err != nil {
		return "", err
	}
	defer unlock()
	for _, dir := range dirs {
		_, failed := s.Unpack(ctx, dir, key)
		switch {
		case failed == nil:
			return dir, nil
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case err == nil:
			err = failed
		}
	}
	return "", err
}

// claim waits until no other process unpacks the state of a key, but not for ever:
// two who unpack the same do no harm.
func (s Store) claim(ctx context.Context, key string) (unlock func(), err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	return claim(ctx, s.Dir, key, unpackWait)
}

func claim(ctx context.Context, dir, key string, wait time.Duration) (unlock func(), err error) {
	path := filepath.Join(dir, ".unpacking-"+key)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(wait)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() {
				_ = os.Remove(path) // whoever waits for it finds the state
				f.Close()
			}, nil
		case !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline):
			return func() { f.Close() }, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}
