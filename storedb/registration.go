package storedb

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"github.com/nix-community/go-nix/pkg/nixhash"
)

// Hash is the SHA-256 digest of a path's archive.
type Hash [sha256.Size]byte

// PathInfo is what is known of one store path. A registration tells neither
// Ultimate nor Sigs nor CA.
type PathInfo struct {
	Path       string
	NarHash    Hash
	NarSize    int64    // bytes of the path's archive; 0 if unknown
	Deriver    string   // the derivation that built it; empty if unknown
	References []string // sorted; the path itself is among them if it refers to itself
	Ultimate   bool     // it was built here, not copied from elsewhere
	Sigs       []string // signatures, each as NAME:BASE64
	CA         string   // content address, as Nix prints it; empty if it has none

	line int // where its record begins in the registration; 0 if it is of none
}

// maxLine is more than any valid line takes: a store path has at most 255 bytes.
const maxLine = 1024

// maxNarSize is more than any store path has: a file of ext4 has at most as many
// bytes. Sums of sizes do not overflow with it.
const maxNarSize = 16 << 40

// maxReferences is more than any store path has; a count above it is not
// followed by that many lines but is a mistake or an attack.
const maxReferences = 1 << 20

// ParseRegistration reads a registration in the format of nix-store --load-db,
// with hashes. name is the file's name in errors, which are of type *InputError
// unless reading fails. A record that occurs twice is returned once; two records
// that contradict each other are an error. References are not resolved here.
func ParseRegistration(r io.Reader, name string) ([]PathInfo, error) {
	p := &parser{lines: newLineReader(r, name), known: map[string]*knownPath{}}
	var infos []PathInfo
	for {
		info, err := p.record()
		if errors.Is(err, io.EOF) {
			return infos, nil
		}
		if err != nil {
			return nil, err
		}
		if known := p.known[info.Path]; known.record == 0 {
			infos = append(infos, info)
			known.record = len(infos)
		} else if first := infos[known.record-1]; !first.equal(info) {
			return nil, p.lines.errorAt(info.line, nil, "%s is registered a second time, differently from line %d", info.Path, first.line)
		}
	}
}

func (i PathInfo) equal(j PathInfo) bool {
	return i.NarHash == j.NarHash && i.NarSize == j.NarSize && i.Deriver == j.Deriver && slices.Equal(i.References, j.References) &&
		i.Ultimate == j.Ultimate && slices.Equal(i.Sigs, j.Sigs) && i.CA == j.CA
}

type parser struct {
	lines lineReader
	// Paths that have been checked, so that each is checked and stored once
	// however often it is referred to.
	known      map[string]*knownPath
	references []string // of the record that is being read
}

type knownPath struct {
	path   string
	record int // number of its record, from 1; 0 if there has been none
}

// record reads one record. It returns io.EOF if there is none.
func (p *parser) record() (PathInfo, error) {
	line, err := p.lines.next()
	if err != nil {
		return PathInfo{}, err
	}
	info := PathInfo{line: p.lines.line}
	if info.Path, err = p.storePath(line, "path"); err != nil {
		return info, err
	}
	if info.NarHash, err = p.hash(); err != nil {
		return info, err
	}
	size, err := p.number("narSize", maxNarSize)
	if err != nil {
		return info, err
	}
	info.NarSize = int64(size)
	if line, err = p.field("deriver"); err != nil {
		return info, err
	}
	if len(line) > 0 {
		if info.Deriver, err = p.storePath(line, "deriver"); err != nil {
			return info, err
		}
		if !isDerivation(info.Deriver) {
			return info, p.lines.errorf("deriver %q does not end in .drv", info.Deriver)
		}
	}
	count, err := p.number("number of references", maxReferences)
	if err != nil {
		return info, err
	}
	p.references = p.references[:0]
	for range count {
		if line, err = p.field("reference"); err != nil {
			return info, err
		}
		reference, err := p.storePath(line, "reference")
		if err != nil {
			return info, err
		}
		p.references = append(p.references, reference)
	}
	if count > 0 {
		slices.Sort(p.references)
		info.References = slices.Clone(slices.Compact(p.references))
	}
	return info, nil
}

// field reads a line inside a record, where the file must not end.
func (p *parser) field(what string) ([]byte, error) {
	line, err := p.lines.next()
	if errors.Is(err, io.EOF) {
		return nil, p.lines.errorAt(p.lines.line+1, io.ErrUnexpectedEOF, "the file ends where the %s of a path is expected", what)
	}
	return line, err
}

func (p *parser) storePath(line []byte, what string) (string, error) {
	if known, ok := p.known[string(line)]; ok {
		return known.path, nil
	}
	path := string(line)
	if err := CheckStorePath(path); err != nil {
		return "", p.lines.errorAt(p.lines.line, err, "%s %v", what, err)
	}
	p.known[path] = &knownPath{path: path}
	return path, nil
}

func (p *parser) hash() (Hash, error) {
	line, err := p.field("narHash")
	if err != nil {
		return Hash{}, err
	}
	h, err := parseHash(line)
	if err != nil {
		return Hash{}, p.lines.errorAt(p.lines.line, err, "narHash %v", err)
	}
	return h, nil
}

const hashPrefix = "sha256:"

// parseHash accepts every form that Nix does: sha256: or nothing before
// hexadecimal, nix32 or base64, and sha256- before base64.
func parseHash(s []byte) (h Hash, err error) {
	// As closureInfo and databases have it.
	if digits, ok := bytes.CutPrefix(s, []byte(hashPrefix)); ok {
		switch len(digits) {
		case nixbase32.EncodedLen(len(h)):
			_, err = nixbase32.Decode(h[:], digits)
		case hex.EncodedLen(len(h)):
			_, err = hex.Decode(h[:], digits)
		default:
			ok = false
		}
		if ok && err == nil {
			return h, nil
		}
	}
	algorithm := nixhash.SHA256
	parsed, err := nixhash.ParseAny(string(s), &algorithm)
	// Base64 of 33 bytes has as many characters as that of 32.
	if err != nil || len(parsed.Digest()) != len(h) {
		return h, fmt.Errorf("%q is not a SHA-256 hash", s)
	}
	return Hash(parsed.Digest()), nil
}

func (p *parser) number(what string, limit uint64) (uint64, error) {
	line, err := p.field(what)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(string(line), 10, 64)
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, p.lines.errorAt(p.lines.line, err, "%s %q is not a decimal number", what, line)
	}
	if err != nil || n > limit {
		return 0, p.lines.errorAt(p.lines.line, err, "%s %q is more than %d", what, line, limit)
	}
	return n, nil
}

// lineReader reads lines of bounded length and knows their numbers.
type lineReader struct {
	r    *bufio.Reader
	name string
	line int
}

func newLineReader(r io.Reader, name string) lineReader {
	return lineReader{r: bufio.NewReaderSize(r, 64<<10), name: name}
}

// next returns the next line without its newline; it is valid until the next
// call. Nix takes a last line without a newline for a file that was cut off,
// and so does this.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF) && len(line) == 0:
		return nil, io.EOF
	case errors.Is(err, io.EOF):
		return nil, l.errorAt(l.line+1, io.ErrUnexpectedEOF, "the last line does not end in a newline: the file has been cut off")
	case len(line) > maxLine:
		return nil, l.errorAt(l.line+1, err, "line has more than %d bytes", maxLine)
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", l.name, err)
	}
	l.line++
	return bytes.TrimSuffix(line, []byte{'\n'}), nil
}

func (l *lineReader) errorf(format string, args ...any) error {
	return l.errorAt(l.line, nil, format, args...)
}

func (l *lineReader) errorAt(line int, err error, format string, args ...any) error {
	return &InputError{File: l.name, Line: line, Reason: fmt.Sprintf(format, args...), Err: err}
}
