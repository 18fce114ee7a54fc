package nar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// raw is put into an archive as it is, without length and padding.
type raw string

// length is that of a string, without the string.
func length(n uint64) raw { return raw(binary.LittleEndian.AppendUint64(nil, n)) }

// wire encodes tokens, which are strings, raw bytes, or lists of such.
func wire(tokens ...any) string { return string(appendWire(nil, tokens)) }

func appendWire(b []byte, tokens []any) []byte {
	for _, t := range tokens {
		switch t := t.(type) {
		case raw:
			b = append(b, t...)
		case string:
			b = append(b, length(uint64(len(t)))...)
			b = append(b, t...)
			b = append(b, make([]byte, -len(t)&7)...)
		case []any:
			b = appendWire(b, t)
		}
	}
	return b
}

func list(tokens ...any) []any { return tokens }

func archive(node []any) string { return wire(magic, node) }

func file(contents string) []any { return list("(", "type", "regular", "contents", contents, ")") }

func symlink(target string) []any { return list("(", "type", "symlink", "target", target, ")") }

func entry(name string, node []any) []any {
	return list("entry", "(", "name", name, "node", node, ")")
}

func directory(entries ...any) []any { return list("(", "type", "directory", entries, ")") }

func deep(levels int) []any {
	node := file("")
	for range levels {
		node = directory(entry("d", node))
	}
	return node
}

// malformed are archives that no version of Nix writes. Nix, or a reader that
// this one replaces, takes some of them.
var malformed = []struct {
	name    string
	archive string
	want    string // in the error
}{
	{"nothing", "", "truncated"},
	{"half a length", "\x0d\x00\x00", "truncated"},
	{"magic only", wire(magic), "truncated"},
	{"wrong magic", wire("nix-archive-2", file("")), `"nix-archive-2" instead of "nix-archive-1"`},
	{"long magic", wire("nix-archive-1 ", file("")), "a keyword of 14 bytes, more than 13"},
	{"compressed", "\x28\xb5\x2f\xfd\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00", "a keyword of"},
	{"no parenthesis", wire(magic, "type", "regular"), `"type" instead of "("`},
	{"no type", wire(magic, "(", "contents", "x", ")"), `"contents" instead of "type"`},
	{"unknown type", wire(magic, "(", "type", "fifo", ")"), `a file of type "fifo"`},
	{"type twice", wire(magic, "(", "type", "regular", "type", "regular", "contents", "x", ")"), `"type" instead of a file's contents`},

	{"file without contents", archive(list("(", "type", "regular", ")")), `")" instead of a file's contents`},
	{"file with target", archive(list("(", "type", "regular", "target", "x", ")")), `"target" instead of a file's contents`},
	{"contents twice", archive(list("(", "type", "regular", "contents", "x", "contents", "x", ")")), `"contents" instead of ")"`},
	{"executable after contents", archive(list("(", "type", "regular", "contents", "x", "executable", "", ")")), `"executable" instead of ")"`},
	{"executable with a value", archive(list("(", "type", "regular", "executable", "1", "contents", "x", ")")), `"1" instead of ""`},
	{"executable twice", archive(list("(", "type", "regular", "executable", "", "executable", "", "contents", "x", ")")), `"executable" instead of a file's contents`},
	{"executable without contents", archive(list("(", "type", "regular", "executable", "", ")")), `")" instead of a file's contents`},
	{"file not closed", wire(magic, "(", "type", "regular", "contents", "x"), "truncated"},

	{"symlink without target", archive(list("(", "type", "symlink", ")")), `")" instead of "target"`},
	{"symlink to nothing", archive(symlink("")), "target of a symbolic link is empty"},
	{"symlink with NUL", archive(symlink("a\x00b")), "has a NUL in it"},
	{"symlink too long", archive(symlink(strings.Repeat("t", 4096))), "a target of a symbolic link of 4096 bytes, more than 4095"},
	{"symlink with contents", archive(list("(", "type", "symlink", "target", "x", "contents", "x", ")")), `"contents" instead of ")"`},

	{"name of a parenthesis, then junk", archive(directory(entry(")", file("")), ")", entry("x", file("")))), "more bytes after the end"},
	{"name empty", archive(directory(entry("", file("")))), "a name is empty"},
	{"name .", archive(directory(entry(".", file("")))), `the name "." is not`},
	{"name ..", archive(directory(entry("..", file("")))), `the name ".." is not`},
	{"name absolute", archive(directory(entry("/etc", file("")))), `the name "/etc" has a slash`},
	{"name with slash", archive(directory(entry("a/b", file("")))), `the name "a/b" has a slash`},
	{"name of slashes and dots", archive(directory(entry("../x", file("")))), `the name "../x" has a slash`},
	{"name with NUL", archive(directory(entry("a\x00", file("")))), "or a NUL in it"},
	{"name too long", archive(directory(entry(strings.Repeat("n", 256), file("")))), "a name of 256 bytes, more than 255"},
	{"name twice", archive(directory(entry("a", file("")), entry("a", file("")))), `the name "a" is there twice`},
	{"name twice, a directory and a link", archive(directory(entry("a", symlink("/etc")), entry("a", directory(entry("x", file("")))))), `"a" is there twice`},
	{"names not sorted", archive(directory(entry("b", file("")), entry("a", file("")))), `the name "a" comes after "b"`},
	{"names sorted by length", archive(directory(entry("b", file("")), entry("aa", file("")))), `the name "aa" comes after "b"`},
	{"names not sorted around a directory", archive(directory(entry("b", directory(entry("c", file("")))), entry("a", file("")))), `the name "a" comes after "b"`},

	{"junk in a directory", archive(directory("junk", entry("a", file("")))), `"junk" instead of an entry`},
	{"empty string in a directory", archive(directory("", entry("a", file("")))), `"" instead of an entry`},
	{"junk between entries", archive(directory(entry("a", file("")), "executable", entry("b", file("")))), `"executable" instead of an entry`},
	{"junk in an entry", archive(directory(list("entry", "(", "junk", "name", "a", "node", file(""), ")"))), `"junk" instead of "name"`},
	{"entry without name", archive(directory(list("entry", "(", "node", file(""), ")"))), `"node" instead of "name"`},
	{"entry without node", archive(directory(list("entry", "(", "name", "a", ")"))), `")" instead of "node"`},
	{"entry with node before name", archive(directory(list("entry", "(", "node", file(""), "name", "a", ")"))), `"node" instead of "name"`},
	{"entry with two nodes", archive(directory(list("entry", "(", "name", "a", "node", file(""), "node", file(""), ")"))), `"node" instead of ")"`},
	{"entry not closed", wire(magic, "(", "type", "directory", "entry", "(", "name", "a", "node", file("")), "truncated"},
	{"directory not closed", wire(magic, "(", "type", "directory", entry("a", file(""))), "truncated"},
	{"directory with contents", archive(list("(", "type", "directory", "contents", "x", ")")), `"contents" instead of an entry`},

	{"257 levels", archive(deep(257)), "nested deeper than 256 directories"},
	{"5000 levels", archive(deep(5000)), "nested deeper than 256 directories"},

	{"padding of a keyword", wire(magic, raw("\x01\x00\x00\x00\x00\x00\x00\x00(\x00\x00\x00\x00\x00\x00x")), "padding is not zero"},
	{"padding of contents", wire(magic, "(", "type", "regular", "contents", length(1), raw("x\x00\x00\x01\x00\x00\x00\x00"), ")"), "padding is not zero"},
	{"padding of a name", wire(magic, "(", "type", "directory", "entry", "(", "name", length(1), raw("xyyyyyyy"), "node", file(""), ")", ")"), "padding is not zero"},
	{"padding of a target", wire(magic, "(", "type", "symlink", "target", length(1), raw("x\x00\x00\x00\x00\x00\x00\xff"), ")"), "padding is not zero"},
	{"padding of eight bytes too many", wire(magic, "(", "type", "regular", "contents", "12345678", raw("\x00\x00\x00\x00\x00\x00\x00\x00"), ")"), `"" instead of ")"`},

	{"length of a keyword", wire(magic, length(math.MaxUint64)), "a keyword of 18446744073709551615 bytes"},
	{"length of a name", wire(magic, "(", "type", "directory", "entry", "(", "name", length(1<<40)), "a name of 1099511627776 bytes"},
	{"length of a target", wire(magic, "(", "type", "symlink", "target", length(1<<63)), "of 9223372036854775808 bytes"},
	{"length of a file", wire(magic, "(", "type", "regular", "contents", length(math.MaxUint64)), "a file of 18446744073709551615 bytes"},
	{"length of a file, signed", wire(magic, "(", "type", "regular", "contents", length(1<<63)), "a file of 9223372036854775808 bytes"},
	{"length of a file that is not there", wire(magic, "(", "type", "regular", "contents", length(1<<50), raw("xxxxxxxx")), "truncated"},

	{"trailing byte", archive(file("x")) + "\x00", "more bytes after the end"},
	{"trailing padding", archive(file("x")) + strings.Repeat("\x00", 8), "more bytes after the end"},
	{"two archives", archive(file("x")) + archive(file("x")), "more bytes after the end"},
	{"parenthesis after the root", archive(symlink("x")) + wire(")"), "more bytes after the end"},
}

// odd are archives that Nix writes and that other readers have stumbled over.
var odd = map[string]string{
	"file":        archive(file("x")),
	"empty file":  archive(file("")),
	"executable":  archive(list("(", "type", "regular", "executable", "", "contents", "x", ")")),
	"symlink":     archive(symlink("../x")),
	"long target": archive(symlink(strings.Repeat("t", 4095))),
	"no entries":  archive(directory()),
	"names like tokens": archive(directory(
		entry("(", file("")), entry(")", file("")), entry("directory", directory()), entry("entry", file("")),
		entry("name", file("")), entry("node", symlink("node")), entry("type", file("type")))),
	"names with dots":        archive(directory(entry("...", file("")), entry("..data", symlink("..")), entry(".x", file("")))),
	"names sorted bytewise":  archive(directory(entry("A-", file("")), entry("A.", file("")), entry("a", file("")), entry("\xff", file("")))),
	"long name":              archive(directory(entry(strings.Repeat("n", 255), file("")))),
	"256 levels":             archive(deep(256)),
	"contents like an entry": archive(directory(entry("a", file(wire(")", ")", entry("b", file(""))))))),
	"every padding": archive(directory(entry("1", file("1")), entry("2", file("12")), entry("3", file("123")), entry("4", file("1234")),
		entry("5", file("12345")), entry("6", file("123456")), entry("7", file("1234567")), entry("8", file("12345678")))),
	"larger than the buffer": archive(directory(entry("a", file(strings.Repeat("a", 3*bufferSize+1))), entry("b", file("b")))),
}

// readAll reads an archive to its end and writes it anew from what it has read.
func readAll(r *Reader) (string, error) {
	var b strings.Builder
	b.WriteString(wire(magic))
	open := 0
	leave := func(depth int) {
		for ; open > depth; open-- {
			b.WriteString(wire(")"))
			if open > 1 {
				b.WriteString(wire(")"))
			}
		}
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			leave(0)
			return b.String(), nil
		}
		if err != nil {
			return "", err
		}
		leave(e.Depth)
		if e.Depth > 0 {
			b.WriteString(wire("entry", "(", "name", e.Name, "node"))
		}
		b.WriteString(wire("(", "type", string(e.Type)))
		switch e.Type {
		case TypeDirectory:
			open++
			continue
		case TypeSymlink:
			b.WriteString(wire("target", e.Target))
		case TypeRegular:
			contents, err := io.ReadAll(r)
			if err != nil {
				return "", err
			}
			if int64(len(contents)) != e.Size {
				return "", fmt.Errorf("%s has %d bytes, not the %d of its entry", e.Name, len(contents), e.Size)
			}
			if e.Executable {
				b.WriteString(wire("executable", ""))
			}
			b.WriteString(wire("contents"))
			if int64(b.Len())+8 != e.Offset {
				return "", fmt.Errorf("%s is at byte %d, not the %d of its entry", e.Name, b.Len()+8, e.Offset)
			}
			b.WriteString(wire(string(contents)))
		}
		b.WriteString(wire(")"))
		if e.Depth > 0 {
			b.WriteString(wire(")"))
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	for _, test := range malformed {
		t.Run(test.name, func(t *testing.T) {
			r := NewReader(strings.NewReader(test.archive))
			_, err := readAll(r)
			checkMalformed(t, err, test.want)
			if _, again := r.Next(); again != err { //nolint:errorlint // the same error, not one like it
				t.Errorf("Next after an error: %v, want the error again", again)
			}
			// What is skipped is held to the same rules.
			r = NewReader(strings.NewReader(test.archive))
			for err = nil; err == nil; {
				_, err = r.Next()
			}
			checkMalformed(t, err, test.want)
		})
	}
}

func checkMalformed(t *testing.T, err error, want string) {
	t.Helper()
	var format *FormatError
	if !errors.As(err, &format) || !strings.Contains(err.Error(), want) {
		t.Errorf("err = %v, want a FormatError with %q", err, want)
	}
}

func TestReaderTakes(t *testing.T) {
	for name, want := range odd {
		t.Run(name, func(t *testing.T) {
			got, err := readAll(NewReader(strings.NewReader(want)))
			if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Error("what was read is not what the archive holds")
			}
		})
	}
}

// An archive that ends anywhere before its end is refused there.
func TestReaderTruncated(t *testing.T) {
	whole := archive(directory(entry("a", file("contents")), entry("b", symlink("target")), entry("c", directory())))
	for n := range len(whole) {
		_, err := readAll(NewReader(strings.NewReader(whole[:n])))
		var format *FormatError
		if !errors.As(err, &format) || format.Offset != int64(n) {
			t.Errorf("the first %d bytes: err = %v, want a FormatError at byte %d", n, err, n)
		}
	}
}

func TestReaderReportsReadError(t *testing.T) {
	errNetwork := errors.New("connection reset")
	whole := archive(file("contents"))
	for n := range len(whole) + 1 {
		r := io.MultiReader(strings.NewReader(whole[:n]), failingReader{errNetwork})
		if _, err := readAll(NewReader(r)); !errors.Is(err, errNetwork) {
			t.Errorf("error after %d bytes: err = %v, want %v", n, err, errNetwork)
		}
	}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// The offset of an error is that of what is wrong.
func TestReaderErrorOffset(t *testing.T) {
	before := wire(magic, "(", "type", "directory", "entry", "(", "name")
	_, err := readAll(NewReader(strings.NewReader(before + wire(".."))))
	want := &FormatError{Offset: int64(len(before)), Reason: `the name ".." is not one of an entry`}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Error(diff)
	}
}

func addArchives(f *testing.F) {
	for _, test := range malformed {
		f.Add([]byte(test.archive))
	}
	for name, a := range odd {
		if len(a) < bufferSize {
			f.Add([]byte(odd[name]))
		}
	}
}

// Whatever the reader takes is the one archive of what it says is in there.
func FuzzReader(f *testing.F) {
	addArchives(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readAll(NewReader(bytes.NewReader(data)))
		var format *FormatError
		switch {
		case err == nil && got != string(data):
			t.Error("accepted, and means another archive")
		case err != nil && !errors.As(err, &format):
			t.Errorf("err = %v, want a FormatError", err)
		}
	})
}

// Whatever is unpacked dumps to the same bytes; of what is refused nothing is left.
func FuzzUnpack(f *testing.F) {
	addArchives(f)
	dir := openDirectory(f, f.TempDir())
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := Unpack(t.Context(), bytes.NewReader(data), dir, "out"); err != nil {
			var st unix.Stat_t
			if unix.Fstatat(int(dir.Fd()), "out", &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
				t.Errorf("refused (%v), and left something", err)
			}
			return
		}
		var got bytes.Buffer
		if err := DumpAt(&got, dir, "out"); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), data) {
			t.Error("accepted, and dumps to another archive")
		}
		if err := tree.Remove(int(dir.Fd()), "out"); err != nil {
			t.Fatal(err)
		}
	})
}
