package warm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/machine"
)

// format is the version of the format of states. It is part of their keys.
const format = 2

// The files of a state.
const (
	ramFile      = "ram"
	diskFile     = "disk.qcow2"
	devicesFile  = "devices"
	manifestFile = "manifest.json"
	sealFile     = "seal.json"
)

// manifest describes a state, wherever it is.
type manifest struct {
	Saved    time.Time             `json:"saved"`
	Inputs   []machine.Input       `json:"inputs"` // the key is their hash
	Hardware json.RawMessage       `json:"hardware"`
	Guest    guest                 `json:"guest"`
	Files    map[string]fileRecord `json:"files"`
}

// fileRecord is what the content of a file must be.
type fileRecord struct {
	Size   int64  `json:"size"`
	Digest string `json:"digest"` // see digest.go
}

// envelope is what is in the manifest's file.
type envelope struct {
	Format   int             `json:"format"`
	SHA256   string          `json:"sha256"` // of Manifest, byte by byte
	Manifest json.RawMessage `json:"manifest"`
}

// maxManifest bounds a manifest, in bytes: it has a machine's console.
const maxManifest = 64 << 20

func (m manifest) encode() ([]byte, error) {
	inner, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return json.Marshal(envelope{format, sha256Of(inner), inner})
}

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// damageError says that a state is not what was saved.
type damageError struct{ err error }

func (e *damageError) Error() string { return e.err.Error() }
func (e *damageError) Unwrap() error { return e.err }

func damaged(format string, args ...any) error {
	return &damageError{fmt.Errorf(format, args...)}
}

// readManifest reads a manifest and its checksum.
func readManifest(path string) (m manifest, sum string, err error) {
	text, err := readBounded(path, maxManifest)
	if err != nil {
		return m, "", err
	}
	return parseManifest(path, text)
}

// parseManifest reads the text of a manifest's file.
func parseManifest(path string, text []byte) (m manifest, sum string, err error) {
	var e envelope
	if err := json.Unmarshal(text, &e); err != nil {
		return m, "", damaged("%s: %w", path, err)
	}
	if e.Format != format {
		return m, "", fmt.Errorf("%s has format %d; this program knows %d", path, e.Format, format)
	}
	if sha256Of(e.Manifest) != e.SHA256 {
		return m, "", damaged("%s is damaged: its checksum is another", path)
	}
	d := json.NewDecoder(bytes.NewReader(e.Manifest))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, "", damaged("%s: %w", path, err)
	}
	for _, name := range []string{ramFile, devicesFile} {
		if _, ok := m.Files[name]; !ok {
			return m, "", damaged("%s: it lacks the file %s", path, name)
		}
	}
	for name := range m.Files {
		if name != ramFile && name != devicesFile && name != diskFile {
			return m, "", damaged("%s: it has the unknown file %q", path, name)
		}
	}
	return m, e.SHA256, nil
}

func readBounded(path string, most int64) ([]byte, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = damaged("%s has more than %d bytes", path, most)
	}
	return text, err
}

// seal says that the files of a state were read and found to be what the manifest
// says, and what they looked like from outside then. Reading gigabytes at each
// start would cost more than booting; but nobody changes a file without changing
// its ctime, which no system call sets.
type seal struct {
	Manifest string             `json:"manifest"` // SHA-256
	Files    map[string]outside `json:"files"`
}

// outside is how a file looks without being read.
type outside struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Size   int64  `json:"size"`
	MTime  int64  `json:"mtime"` // nanoseconds
	CTime  int64  `json:"ctime"` // nanoseconds
}

func look(path string) (outside, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return outside{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return outside{}, damaged("%s is not a file", path)
	}
	return outside{st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// tick is more than the time between two changes of the clock that files get their
// ctime from: 10 ms at 100 Hz.
const tick = 20 * time.Millisecond

// settle waits until whatever changes files from now on gives them another ctime.
func settle(ctx context.Context, files map[string]outside) error {
	var newest int64
	for _, f := range files {
		newest = max(newest, f.CTime)
	}
	wait := min(time.Until(time.Unix(0, newest).Add(tick)), tick) // a ctime can be in the future
	if wait <= 0 {
		return nil
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lookAll looks at the files of a state.
func (m manifest) lookAll(dir string) (map[string]outside, error) {
	all := map[string]outside{}
	for name, record := range m.Files {
		o, err := look(filepath.Join(dir, name))
		switch {
		case errors.Is(err, os.ErrNotExist):
			return nil, damaged("%s is missing", filepath.Join(dir, name))
		case err != nil:
			return nil, err
		case o.Size != record.Size:
			return nil, damaged("%s has %d bytes, and had %d when it was saved", filepath.Join(dir, name), o.Size, record.Size)
		}
		all[name] = o
	}
	return all, nil
}

// verify reads all files of a state and compares them with what was saved.
func (m manifest) verify(ctx context.Context, dir string) error {
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		path := filepath.Join(dir, name)
		sum, err := digestOf(ctx, path)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return damaged("%w", err)
		case sum != m.Files[name].Digest:
			return damaged("%s is damaged: its content is not what was saved", path)
		}
	}
	return nil
}
