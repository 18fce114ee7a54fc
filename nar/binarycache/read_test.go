package binarycache

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"vm-prebuild/nar/compress"
	"vm-prebuild/nar/internal/nartest"
	"vm-prebuild/nar/narinfo"
)

// lies are ways in which a narinfo, or the file that it names, is wrong.
var lies = []struct {
	name   string
	change func(info *narinfo.NarInfo, other *narinfo.NarInfo)
	text   func(text string) string
	want   string
}{
	{name: "another path", change: func(info, other *narinfo.NarInfo) { info.StorePath = other.StorePath }, want: "it is about"},
	{name: "another name", change: func(info, _ *narinfo.NarInfo) { info.StorePath += "x" }, want: "and the cache has"},
	{name: "NarHash", change: func(info, other *narinfo.NarInfo) { info.NarHash = other.NarHash }, want: "the archive has the hash"},
	{name: "NarSize too small", change: func(info, _ *narinfo.NarInfo) { info.NarSize -= 8 }, want: "the archive has more than"},
	{name: "NarSize too large", change: func(info, _ *narinfo.NarInfo) { info.NarSize += 8 }, want: "the archive has"},
	{name: "FileSize too small", change: func(info, _ *narinfo.NarInfo) { info.FileSize-- }, want: "its narinfo says"},
	{name: "FileSize too large", change: func(info, _ *narinfo.NarInfo) { info.FileSize++ }, want: "its narinfo says"},
	{name: "FileSize far too large", change: func(info, _ *narinfo.NarInfo) { info.FileSize = 1 << 40 }, want: "which is too much for an archive of"},
	{name: "FileHash", change: func(info, other *narinfo.NarInfo) { info.FileHash = other.FileHash }, want: "it has the hash"},
	{name: "file of another path", change: func(info, other *narinfo.NarInfo) {
		info.URL, info.FileHash, info.FileSize = other.URL, other.FileHash, other.FileSize
	}, want: "the archive has"},
	{name: "compression", change: func(info, _ *narinfo.NarInfo) { info.Compression = "xz" }, want: "decompress xz"},
	{name: "unknown compression", change: func(info, _ *narinfo.NarInfo) { info.Compression = "br" }, want: `compression "br" is not supported`},
	{name: "no file", change: func(info, _ *narinfo.NarInfo) { info.URL = "nar/none.nar.zst" }, want: "no such file, although"},
	{name: "URL that leads out", change: func(info, _ *narinfo.NarInfo) { info.URL = "../../etc/passwd" }, want: "leads out of the cache"},
	{name: "absolute URL", change: func(info, _ *narinfo.NarInfo) { info.URL = "http://example.org/x.nar" }, want: "is not relative to the cache"},
	{name: "reference that is not there", change: func(info, _ *narinfo.NarInfo) {
		info.References = []string{nartest.Path(99, "none")}
	}, want: "the cache does not have this path"},
	{name: "circle", change: func(info, other *narinfo.NarInfo) { info.References = []string{other.StorePath} }, want: "lead in a circle"},
	{name: "malformed", text: func(text string) string { return text[:len(text)/2] }, want: ".narinfo:"},
	{name: "large", text: func(text string) string { return text + strings.Repeat("x", 2<<20) }, want: "has more than"},
}

// lyingCache is a cache in which path number 2 of 4 is changed; number 3 refers
// to it. It returns the changed narinfo.
func lyingCache(t *testing.T, i int) (dir string, part string) {
	t.Helper()
	s := nartest.NewStore(t, 4, 1000)
	o := options(s, t.TempDir())
	mustWrite(t, o)
	c, err := Open(t.Context(), o.Location, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	infos := closure(t, c)
	info, other := infos[2], infos[3]
	file := filepath.Join(o.Location, info.HashPart()+".narinfo")
	part = info.HashPart()
	if lies[i].change != nil {
		lies[i].change(info, other)
	}
	text := info.String()
	if lies[i].text != nil {
		text = lies[i].text(text)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return o.Location, part
}

// checkLie reads a lying cache and makes sure that it is found out.
func checkLie(t *testing.T, i int, location string, part string) {
	t.Helper()
	c, err := Open(t.Context(), location, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	to := nartest.OpenDir(t)
	infos, err := c.Closure(t.Context(), []string{hashPart(nartest.Path(3, "path"))})
	for _, info := range infos {
		if info.HashPart() == part {
			err = errors.Join(err, c.Unpack(t.Context(), info, to, "name"))
		}
	}
	if err == nil || !strings.Contains(err.Error(), lies[i].want) {
		t.Errorf("got %v, want %s", err, lies[i].want)
		return
	}
	coder, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err)
	if !ok || coder.ExitCode() != 1 && coder.ExitCode() != 2 {
		t.Errorf("%v has not the exit code of bad input", err)
	}
}

func TestLies(t *testing.T) {
	for i, lie := range lies {
		t.Run(lie.name, func(t *testing.T) {
			dir, part := lyingCache(t, i)
			checkLie(t, i, dir, part)
		})
	}
}

// A file that goes on after its archive is not read for ever.
func TestEndlessFile(t *testing.T) {
	s := nartest.NewStore(t, 1, 1000)
	o := options(s, t.TempDir())
	mustWrite(t, o)
	c, err := Open(t.Context(), o.Location, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	info := closure(t, c)[0]
	info.FileSize, info.FileHash = 0, nil
	if err := os.Truncate(filepath.Join(o.Location, info.URL), 1<<40); err != nil {
		t.Fatal(err)
	}
	err = c.Unpack(t.Context(), info, nartest.OpenDir(t), "name")
	if err == nil || !strings.Contains(err.Error(), info.URL) {
		t.Errorf("got %v", err)
	}
	// As it is for a server that does not say how much it sends.
	file := &fileReader{r: endless{}, limit: maxFileSize(info.NarSize), digest: sha256.New()}
	if err := c.checkFile(info, file); err == nil || !strings.Contains(err.Error(), info.URL+": it has more than") {
		t.Errorf("got %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestSignatures(t *testing.T) {
	s := nartest.NewStore(t, 3, 1000)
	secret, public := keys(t, "ours")
	_, other := keys(t, "ours")
	_, stranger := keys(t, "others")
	signed, plain := t.TempDir(), t.TempDir()
	o := options(s, signed)
	o.Keys = []signature.SecretKey{secret}
	mustWrite(t, o)
	mustWrite(t, options(s, plain))
	// A path that is content addressed is to be signed, too.
	for _, tt := range []struct {
		dir  string
		keys []signature.PublicKey
		want string
	}{
		{signed, []signature.PublicKey{public}, ""},
		{signed, []signature.PublicKey{stranger, public}, ""},
		{signed, nil, ""},
		{plain, nil, ""},
		{signed, []signature.PublicKey{other}, "by the key ours is wrong"},
		{signed, []signature.PublicKey{stranger}, "is signed by ours, which is not trusted"},
		{plain, []signature.PublicKey{public}, "has no signature"},
	} {
		c, err := Open(t.Context(), tt.dir, Options{TrustedKeys: tt.keys})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Closure(t.Context(), []string{s.Infos[2].HashPart()})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
		if signature, ok := errors.AsType[*narinfo.SignatureError](err); tt.want != "" && (!ok || signature.ExitCode() != 1) {
			t.Errorf("%v is no SignatureError", err)
		}
		c.Close()
	}
}

// A small file that decompresses to a lot ends where its narinfo says.
func TestDecompressionBomb(t *testing.T) {
	s := nartest.NewStore(t, 1, 1000)
	o := options(s, t.TempDir())
	mustWrite(t, o)
	compressor, err := compress.New(compress.Zstd, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	// An archive of one file of 1 GiB, of which 64 MiB are there.
	var bomb bytes.Buffer
	w := compressor.NewWriter(t.Context(), &bomb, 0)
	archive := []byte("\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00(\x00\x00\x00\x00\x00\x00\x00" +
		"\x04\x00\x00\x00\x00\x00\x00\x00type\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00regular\x00" +
		"\x08\x00\x00\x00\x00\x00\x00\x00contents\x00\x00\x00\x40\x00\x00\x00\x00")
	if _, err := w.Write(append(archive, make([]byte, 64<<20)...)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), o.Location, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	info := closure(t, c)[0]
	if err := os.WriteFile(filepath.Join(o.Location, info.URL), bomb.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	info.FileSize, info.FileHash = 0, nil
	to := nartest.OpenDir(t)
	err = c.Unpack(t.Context(), info, to, "name")
	if e, ok := errors.AsType[*Error](err); !ok || !e.Lie || !strings.Contains(err.Error(), "the archive has more than the") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(to.Name(), "name")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(t.Context(), t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "this is not a binary cache") {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Open(t.Context(), "/nowhere/at/all", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Open(t.Context(), "ftp://example.org", Options{}); err == nil {
		t.Error("ftp: no error")
	}
	s := nartest.NewStore(t, 1, 10)
	o := options(s, t.TempDir())
	mustWrite(t, o)
	c, err := Open(t.Context(), o.Location, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, part := range []string{"", "../../etc/passwd", strings.Repeat("e", 32), strings.Repeat("a", 31)} {
		if _, err := c.NarInfo(t.Context(), part); err == nil {
			t.Errorf("%q: no error", part)
		}
	}
	if _, err := c.NarInfo(t.Context(), strings.Repeat("a", 32)); !errors.Is(err, ErrNotFound) {
		t.Errorf("a path that is not there: %v", err)
	}
}

// A cache may not lead its reader out of its directory, nor to a device.
func TestDirIsClosed(t *testing.T) {
	s := nartest.NewStore(t, 1, 1000)
	o := options(s, t.TempDir())
	mustWrite(t, o)
	c, err := Open(t.Context(), o.Location, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	info := closure(t, c)[0]
	file := filepath.Join(o.Location, info.URL)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := errors.Join(os.Rename(file, outside), os.Symlink(outside, file)); err != nil {
		t.Fatal(err)
	}
	if err := c.Unpack(t.Context(), info, nartest.OpenDir(t), "name"); err == nil {
		t.Error("a symbolic link that leads out: no error")
	}
}
