package synthetic

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// textBytes is how much text there is before it repeats: more than compressors
// remember at their usual levels.
const textBytes = 16 << 20

// chunkBytes is the length of the stretches of random bytes or text that files
// consist of.
const chunkBytes = 64 << 10

// singleShare is the share of paths with one file that are that file.
const singleShare = 0.3

// newText makes text that compresses about as well as source code.
func newText(seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1<<63))
	words := make([]string, 3000)
	for i := range words {
		word := make([]byte, 2+rnd.IntN(9))
		for k := range word {
			word[k] = "etaoinshrdlucmfwypvbgkjqxz_"[min(rnd.IntN(27), rnd.IntN(27))]
		}
		words[i] = string(word)
	}
	text := make([]byte, 0, textBytes+chunkBytes)
	for len(text) < textBytes {
		// Some words are far more frequent than others.
		word := words[int(float64(len(words))*rnd.Float64()*rnd.Float64())]
		text = append(text, word...)
		text = append(text, "    \n;.()"[rnd.IntN(9)])
	}
	return text[:textBytes]
}

// writer makes the files of one path.
type writer struct {
	*storePath
	rnd  *rand.Rand
	text []byte
}

// write makes the path as file.
func (w *writer) write(file string) error {
	if len(w.sizes) == 0 {
		w.regular = 1
		return w.file(file, 0, false, nil)
	}
	if len(w.sizes) == 1 && w.rnd.Float64() < singleShare {
		w.regular = 1
		return w.file(file, w.sizes[0], false, w.references)
	}
	dirs := map[string]bool{file: true}
	first := ""
	for i, size := range w.sizes {
		sub := w.subdirectory(i)
		name := filepath.Join(file, sub, fmt.Sprint("f", i))
		for dir := filepath.Dir(name); !dirs[dir]; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if i > 0 && w.rnd.Float64() < symlinkShare {
			w.symlinks++
			if err := symlink(first, name); err != nil {
				return err
			}
			continue
		}
		refs := w.references
		if i == 0 {
			first = name
		} else {
			refs = nil
		}
		w.regular++
		if err := w.file(name, size, sub == "bin", refs); err != nil {
			return err
		}
	}
	return seal(dirs)
}

// subdirectory is where file number i goes.
func (w *writer) subdirectory(i int) string {
	if len(w.sizes) <= 3 {
		return "bin"
	}
	subs := []string{"bin", "lib", "share/doc", "share/man/man1", fmt.Sprintf("lib/python3/site-packages/m%02d", i/25)}
	return subs[w.rnd.IntN(len(subs))]
}

// file makes a regular file that is unlike any other and mentions refs.
func (w *writer) file(name string, size int64, executable bool, refs []string) error {
	mode := os.FileMode(0o444)
	if executable {
		mode = 0o555
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := bufio.NewWriterSize(f, 2*chunkBytes)
	w.content(buf, size, refs)
	if err := buf.Flush(); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return setTime(name)
}

// content writes size bytes, or a few more if refs need them. Errors stay in
// the buffer.
func (w *writer) content(buf *bufio.Writer, size int64, refs []string) {
	if len(refs) > 0 {
		n, _ := buf.WriteString(strings.Join(refs, "\n") + "\n")
		size -= int64(n)
	}
	random := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%016x%016x", w.rnd.Uint64(), w.rnd.Uint64()))))
	for size > 0 {
		n := min(size, chunkBytes)
		if w.rnd.IntN(2) == 0 {
			_, _ = io.CopyN(buf, random, n)
		} else {
			at := w.rnd.IntN(len(w.text) - chunkBytes)
			_, _ = buf.Write(w.text[at : at+int(n)])
		}
		size -= n
	}
}

// symlink makes name a relative link to target.
func symlink(target, name string) error {
	relative, err := filepath.Rel(filepath.Dir(name), target)
	if err != nil {
		return err
	}
	if err := os.Symlink(relative, name); err != nil {
		return err
	}
	return setTime(name)
}

// seal gives directories their final metadata, children first.
func seal(dirs map[string]bool) error {
	names := make([]string, 0, len(dirs))
	for dir := range dirs {
		names = append(names, dir)
	}
	slices.Sort(names)
	for _, dir := range slices.Backward(names) {
		if err := os.Chmod(dir, 0o555); err != nil {
			return err
		}
		if err := setTime(dir); err != nil {
			return err
		}
	}
	return nil
}

// setTime sets the modification time that everything in a store has.
func setTime(name string) error {
	times := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set time of", Path: name, Err: err}
	}
	return nil
}
