package narinfo

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixhash"

	"vm-prebuild/nar/storepath"
)

// maxSize bounds a narinfo, in bytes: 10,000 references of the longest names
// are half as much.
const maxSize = 5 << 20

// FormatError says what is wrong with a narinfo.
type FormatError struct {
	File   string // as given to Parse
	Line   int    // in File, from 1; 0 if the error is about no single line
	Reason string
	Err    error // the cause; may be nil
}

func (e *FormatError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Reason
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason)
}

func (e *FormatError) Unwrap() error { return e.Err }

// ExitCode is that of wrong usage or configuration.
func (e *FormatError) ExitCode() int { return 2 }

// Parse reads a narinfo; name says which, for messages. Keys that it does not
// know are ignored, as newer versions of Nix may add some. Where Nix leaves it
// open what a file means, such as one with two hashes, and where it would believe
// what cannot be, the file is refused with a *FormatError. Whether the archive is
// as described is for the caller to see, and whether the store path is the one
// that was asked for.
func Parse(r io.Reader, name string) (*NarInfo, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	p := parser{file: name, seen: map[string]bool{}}
	if len(data) > maxSize {
		return nil, p.errorf("has more than %d bytes", maxSize)
	}
	for line := range strings.Lines(string(data)) {
		p.line++
		if err := p.parseLine(line); err != nil {
			return nil, err
		}
	}
	p.line = 0
	for _, key := range []string{"StorePath", "URL", "NarHash", "NarSize", "References"} {
		if !p.seen[key] {
			return nil, p.errorf("has no %s", key)
		}
	}
	if p.info.Compression == "" {
		p.info.Compression = "bzip2" // which Nix first knew no other than
	}
	slices.Sort(p.info.Sigs)
	p.info.Sigs = slices.Compact(p.info.Sigs)
	return &p.info, nil
}

type parser struct {
	file string
	line int
	seen map[string]bool // keys that there can be one of
	info NarInfo
}

func (p *parser) errorf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &FormatError{File: p.file, Line: p.line, Reason: err.Error(), Err: errors.Unwrap(err)}
}

func (p *parser) parseLine(line string) error {
	line, ok := strings.CutSuffix(line, "\n")
	if !ok {
		return p.errorf("the last line does not end in a newline: the file has been cut off")
	}
	key, value, ok := strings.Cut(line, ": ")
	if !ok {
		return p.errorf("%q is not of the form 'Key: value'", line)
	}
	parse := p.field(key)
	if parse == nil {
		return nil
	}
	if key != "Sig" && p.seen[key] {
		return p.errorf("a second %s", key)
	}
	p.seen[key] = true
	if i := strings.IndexFunc(value, func(c rune) bool { return c < ' ' || c > '~' }); i >= 0 {
		return p.errorf("%s %q has the character %q", key, value, value[i])
	}
	if err := parse(value); err != nil {
		return p.errorf("%s %w", key, err)
	}
	return nil
}

// field returns what parses the value of a key, or nil for an unknown key.
func (p *parser) field(key string) func(value string) error {
	switch key {
	case "StorePath":
		return func(value string) error {
			p.info.StorePath = value
			return storepath.Check(value)
		}
	case "URL":
		return func(value string) error {
			p.info.URL = value
			return checkURL(value)
		}
	case "Compression":
		return word(&p.info.Compression)
	case "FileHash":
		return func(value string) error {
			p.info.FileHash = new(Hash)
			return parseHash(p.info.FileHash, value)
		}
	case "FileSize":
		return size(&p.info.FileSize, 0)
	case "NarHash":
		return func(value string) error { return parseHash(&p.info.NarHash, value) }
	case "NarSize":
		return size(&p.info.NarSize, 1)
	case "References":
		return p.references
	case "Deriver":
		return p.deriver
	case "Sig":
		return p.sig
	case "CA":
		return word(&p.info.CA)
	}
	return nil
}

func (p *parser) references(value string) error {
	for base := range strings.FieldsSeq(value) {
		path := storepath.Dir + "/" + base
		if err := storepath.Check(path); err != nil {
			return err
		}
		p.info.References = append(p.info.References, path)
	}
	slices.Sort(p.info.References)
	p.info.References = slices.Compact(p.info.References)
	return nil
}

func (p *parser) deriver(value string) error {
	if value == "unknown-deriver" {
		return nil
	}
	p.info.Deriver = storepath.Dir + "/" + value
	if !strings.HasSuffix(value, ".drv") {
		return fmt.Errorf("%q does not end in .drv", value)
	}
	return storepath.Check(p.info.Deriver)
}

// sig does not look into a signature: it may be of a kind that only others know.
func (p *parser) sig(value string) error {
	name, data, ok := strings.Cut(value, ":")
	if !ok || name == "" || data == "" || strings.Contains(value, " ") {
		return fmt.Errorf("%q is not of the form NAME:SIGNATURE", value)
	}
	p.info.Sigs = append(p.info.Sigs, value)
	return nil
}

// checkURL makes sure that what url names lies in the cache.
func checkURL(url string) error {
	path, _, _ := strings.Cut(url, "?")
	switch {
	case path == "" || strings.Contains(url, " "):
		return fmt.Errorf("%q is not one", url)
	case strings.HasPrefix(path, "/") || strings.Contains(path, "://"):
		return fmt.Errorf("%q is not relative to the cache", url)
	case slices.Contains(strings.FieldsFunc(path, func(c rune) bool { return c == '/' || c == '\\' }), ".."):
		return fmt.Errorf("%q leads out of the cache", url)
	}
	return nil
}

// word parses a value that has no spaces in it, and may be empty.
func word(target *string) func(string) error {
	return func(value string) error {
		if strings.Contains(value, " ") {
			return fmt.Errorf("%q has a space in it", value)
		}
		*target = value
		return nil
	}
}

func size(target *int64, least uint64) func(string) error {
	return func(value string) error {
		n, err := strconv.ParseUint(value, 10, 64)
		switch {
		case err != nil && !errors.Is(err, strconv.ErrRange):
			return fmt.Errorf("%q is not a decimal number", value)
		case err != nil || n > math.MaxInt64:
			return fmt.Errorf("%s is more than %d", value, int64(math.MaxInt64))
		case n < least:
			return fmt.Errorf("%s is less than %d", value, least)
		}
		*target = int64(n)
		return nil
	}
}

// parseHash accepts every form that Nix does: sha256: before hexadecimal, nix32
// or base64, and sha256- before base64.
func parseHash(target *Hash, value string) error {
	h, err := nixhash.ParseAny(value, nil)
	// Base64 of 33 bytes has as many characters as that of 32.
	if err != nil || h.Algo() != nixhash.SHA256 || len(h.Digest()) != sha256.Size {
		return fmt.Errorf("%q is not a SHA-256 hash", value)
	}
	*target = Hash(h.Digest())
	return nil
}
