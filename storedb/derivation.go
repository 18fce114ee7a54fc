package storedb

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// output is one of a derivation, as DerivationOutputs has it.
type output struct{ name, path string }

// outputsFrom reads the derivations of g from the store below root.
func outputsFrom(ctx context.Context, g *graph, root string, jobs int) (map[string][]output, error) {
	var derivations []PathInfo
	var names []string
	for i := range g.paths {
		if isDerivation(g.paths[i].Path) {
			derivations = append(derivations, g.paths[i])
			names = append(names, baseName(g.paths[i].Path))
		}
	}
	if len(derivations) == 0 {
		return nil, nil
	}
	dir, err := os.Open(filepath.Join(cmp.Or(root, "/"), storeDir))
	if err != nil {
		return nil, fmt.Errorf("read derivations: %w", err)
	}
	defer dir.Close()
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	return readOutputs(ctx, int(dir.Fd()), derivations, names, jobs)
}

// readOutputs reads the derivations among infos from the open directory store,
// where info i has the name names[i]. Without rows for their outputs, Nix says
// that the derivations have none.
func readOutputs(ctx context.Context, store int, infos []PathInfo, names []string, jobs int) (map[string][]output, error) {
	found := make([][]output, len(infos))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	for i, info := range infos {
		if !isDerivation(info.Path) {
			continue
		}
		group.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			found[i], err = derivationOutputs(store, names[i])
			if err != nil {
				return fmt.Errorf("read outputs of derivation %s: %w", info.Path, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	outputs := map[string][]output{}
	for i, info := range infos {
		if len(found[i]) > 0 {
			outputs[info.Path] = found[i]
		}
	}
	return outputs, nil
}

// derivationOutputs reads the outputs of the derivation name in dir. One whose
// path is not known before it is built has no row, and is left out.
func derivationOutputs(dir int, name string) ([]output, error) {
	fd, err := tree.Open(dir, name, tree.OpenFlags, 0)
	if err != nil {
		return nil, err
	}
	defer tree.CloseRead(fd)
	return parseOutputs(readerOf(fd))
}

// readerOf reads from a file descriptor.
type readerOf int

func (fd readerOf) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(fd), p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// parseOutputs reads a derivation as far as its outputs, which come first. The
// form is that of Nix's src/libstore/derivations.cc:
//
//	Derive([("out","/nix/store/…","",""),…],…
//	DrvWithVersion("xp-dyn-drv",[("out",…
//
// A tuple is an output's name, its path, and what is known of its hash. The path
// is empty if it depends on contents that there are not yet.
func parseOutputs(r io.Reader) ([]output, error) {
	s := outputScanner{r: bufio.NewReader(r)}
	var outputs []output
	names := map[string]bool{}
	if err := s.begin(); err != nil {
		return nil, err
	}
	for separator := byte(','); separator == ','; {
		fields, err := s.tuple()
		if err != nil {
			return nil, err
		}
		name, path := fields[0], fields[1]
		if name == "" || names[name] {
			return nil, fmt.Errorf("output %q has no name of its own", name)
		}
		names[name] = true
		if path != "" {
			if err := CheckStorePath(path); err != nil {
				return nil, fmt.Errorf("output %q: %w", name, err)
			}
			outputs = append(outputs, output{name, path})
		}
		if separator, err = s.next(); err != nil {
			return nil, err
		}
		if separator != ',' && separator != ']' {
			return nil, fmt.Errorf("not a derivation: %q after an output", separator)
		}
	}
	slices.SortFunc(outputs, func(a, b output) int { return strings.Compare(a.name, b.name) })
	return outputs, nil
}

// maxField is more than any field of an output takes, in bytes.
const maxField = 1024

// outputScanner reads the tokens of a derivation.
type outputScanner struct{ r *bufio.Reader }

// begin reads up to the first output. A derivation always has one.
func (s *outputScanner) begin() error {
	c, err := s.r.Peek(3)
	if err == nil && string(c) == "Drv" {
		if err := s.expect("DrvWithVersion("); err != nil {
			return err
		}
		version, err := s.string()
		if err != nil {
			return err
		}
		if version != "xp-dyn-drv" {
			return fmt.Errorf("a derivation of unknown version %q", version)
		}
		return s.expect(",[")
	}
	return s.expect("Derive([")
}

func (s *outputScanner) tuple() (fields [4]string, err error) {
	for i, before := range []string{"(", ",", ",", ","} {
		if err := s.expect(before); err != nil {
			return fields, err
		}
		if fields[i], err = s.string(); err != nil {
			return fields, err
		}
	}
	return fields, s.expect(")")
}

func (s *outputScanner) expect(token string) error {
	for i := range len(token) {
		c, err := s.next()
		if err != nil {
			return err
		}
		if c != token[i] {
			return fmt.Errorf("not a derivation: %q where %q is expected", c, token[i:])
		}
	}
	return nil
}

// string reads a string in quotes, in which a backslash stands before what is
// not to be taken literally.
func (s *outputScanner) string() (string, error) {
	if err := s.expect(`"`); err != nil {
		return "", err
	}
	var buf [128]byte
	for text := buf[:0]; len(text) <= maxField; {
		c, err := s.next()
		if err != nil {
			return "", err
		}
		if c == '"' {
			return string(text), nil
		}
		if c == '\\' {
			if c, err = s.next(); err != nil {
				return "", err
			}
			if i := strings.IndexByte("nrt", c); i >= 0 {
				c = "\n\r\t"[i]
			}
		}
		text = append(text, c)
	}
	return "", fmt.Errorf("not a derivation: a string has more than %d bytes", maxField)
}

func (s *outputScanner) next() (byte, error) {
	c, err := s.r.ReadByte()
	if errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("not a derivation: it ends before its outputs do: %w", io.ErrUnexpectedEOF)
	}
	return c, err
}
