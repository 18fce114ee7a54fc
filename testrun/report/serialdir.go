package report

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"vm-prebuild/testrun/event"
)

// SerialDir writes what each machine says on its console to a file of its own,
// MACHINE.log, line by line as it comes and as it is: control sequences
// included.
type SerialDir struct {
	dir     *os.Root
	streams map[string]*stream
	failed  error // the first file that could not be opened
}

// NewSerialDir creates dir if need be, but not what is above it.
func NewSerialDir(dir string) (*SerialDir, error) {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, unwritable("directory of consoles", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, unwritable("directory of consoles", dir, err)
	}
	return &SerialDir{dir: root, streams: map[string]*stream{}}, nil
}

// Handle implements event.Sink.
func (s *SerialDir) Handle(r event.Record) {
	switch e := r.Event.(type) {
	case event.Serial:
		if out := s.stream(e.Machine); out != nil {
			out.WriteString(e.Text)
			out.WriteByte('\n')
			_ = out.Flush() // an error stays with the writer
		}
	case event.MachineStarted:
		s.stream(e.Machine) // a machine that says nothing has an empty file
	}
}

// stream is nil for a machine whose file could not be opened.
func (s *SerialDir) stream(machine string) *stream {
	if out, known := s.streams[machine]; known {
		return out
	}
	name := machine + ".log"
	var out *stream
	f, err := s.dir.Create(name)
	if err == nil {
		out = newStream("console", f)
	} else if s.failed == nil {
		s.failed = fmt.Errorf("console %s: %w", filepath.Join(s.dir.Name(), name), unpath(err))
	}
	s.streams[machine] = out
	return out
}

// Close implements event.Sink.
func (s *SerialDir) Close() error {
	errs := []error{s.failed}
	for _, out := range s.streams {
		if out != nil {
			errs = append(errs, out.close())
		}
	}
	return errors.Join(append(errs, s.dir.Close())...)
}
