package report

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// stream is a report that is written while the test runs, under its own name:
// when the driver is killed, what it had reported is there.
type stream struct {
	*bufio.Writer
	kind string
	file *os.File // nil when nothing is to be kept: os.DevNull
}

// openStream creates or empties file. kind names the report in errors.
func openStream(kind, file string) (*stream, error) {
	if file == os.DevNull {
		return &stream{kind: kind}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, unwritable(kind, file, err)
	}
	return newStream(kind, f), nil
}

func newStream(kind string, f *os.File) *stream {
	return &stream{Writer: bufio.NewWriter(f), kind: kind, file: f}
}

// discards reports whether nothing that is written is kept.
func (s *stream) discards() bool { return s.file == nil }

// close reports the first error of all writes.
func (s *stream) close() error {
	if s.discards() {
		return nil
	}
	err := s.Flush()
	if closeErr := s.file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", s.kind, s.file.Name(), unpath(err))
	}
	return nil
}

// replacement is a report that is written once, at the end of a test: into a
// file with a temporary name, which then takes the place of an earlier report.
type replacement struct {
	kind string
	name string // of the report
	tmp  *os.File
}

// openReplacement makes sure that the report can be written when its time
// comes. What is no regular file, such as /dev/null or a pipe, is written to
// and stays what it is.
func openReplacement(kind, file string) (*replacement, error) {
	r := &replacement{kind: kind, name: file}
	info, err := os.Stat(file)
	switch {
	case err == nil && info.IsDir():
		err = errors.New("it is a directory")
	case err == nil && !info.Mode().IsRegular():
		r.tmp, err = os.OpenFile(file, os.O_WRONLY, 0)
	default:
		r.tmp, err = os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	}
	if err != nil {
		return nil, unwritable(kind, file, err)
	}
	return r, nil
}

// commit puts what write writes in the place of the report.
func (r *replacement) commit(write func(*bufio.Writer) error) error {
	defer r.discard()
	out := bufio.NewWriterSize(r.tmp, 64<<10)
	err := write(out)
	if err == nil {
		err = out.Flush()
	}
	if r.tmp.Name() != r.name {
		if err == nil {
			err = r.tmp.Chmod(0o644)
		}
		if closeErr := r.tmp.Close(); err == nil {
			err = closeErr
		}
		if err == nil {
			err = os.Rename(r.tmp.Name(), r.name)
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", r.kind, r.name, unpath(err))
	}
	return nil
}

// discard leaves an earlier report as it is.
func (r *replacement) discard() {
	r.tmp.Close()
	if r.tmp.Name() != r.name {
		os.Remove(r.tmp.Name())
	}
}

// unwritable explains why a report could not be opened.
func unwritable(kind, file string, err error) error {
	err = fmt.Errorf("%s %s: %w", kind, file, unpath(err))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w\nhint: create the directory %s first", err, filepath.Dir(file))
	}
	return err
}

// unpath takes the operation and path, which the caller names, off an error.
func unpath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
