package binarycache

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nix-community/go-nix/pkg/narinfo/signature"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar/compress"
	"vm-prebuild/nar/internal/nartest"
	"vm-prebuild/nar/narinfo"
)

func options(s *nartest.Store, location string) WriteOptions {
	return WriteOptions{Location: location, Paths: s.Infos, File: s.File, Compression: compress.Zstd, Level: 1, Jobs: 4}
}

func mustWrite(t *testing.T, o WriteOptions) WriteSummary {
	t.Helper()
	summary, err := Write(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return summary
}

func keys(t *testing.T, name string) (signature.SecretKey, signature.PublicKey) {
	t.Helper()
	secret, public, err := signature.GenerateKeypair(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return secret, public
}

// checkCache unpacks everything of a cache, and makes sure that nothing else is
// there.
func checkCache(t *testing.T, dir string, want int, o Options) {
	t.Helper()
	c, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	infos := closure(t, c)
	if len(infos) != want {
		t.Errorf("%d paths, want %d", len(infos), want)
	}
	to := nartest.OpenDir(t)
	files := []string{"nix-cache-info"}
	for _, info := range infos {
		name := filepath.Base(info.StorePath)
		if err := c.Unpack(t.Context(), info, to, name); err != nil {
			t.Error(err)
			continue
		}
		nartest.Check(t, info, filepath.Join(to.Name(), name))
		files = append(files, info.URL, info.HashPart()+".narinfo", info.HashPart()+".ls")
	}
	err = fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !slices.Contains(files, path) || strings.HasPrefix(path, "tmp-") {
			t.Errorf("%s is left over", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func closure(t *testing.T, c *Cache) []*narinfo.NarInfo {
	t.Helper()
	parts, err := c.HashParts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	infos, err := c.Closure(t.Context(), parts)
	if err != nil {
		t.Fatal(err)
	}
	return infos
}

func TestWrite(t *testing.T) {
	s := nartest.NewStore(t, 25, 18<<20)
	for _, method := range []compress.Method{compress.Zstd, compress.XZ, compress.None} {
		t.Run(string(method), func(t *testing.T) {
			store := s
			if method == compress.XZ {
				nartest.Tool(t, "xz")
				store = nartest.NewStore(t, 5, 2<<20)
			}
			secret, public := keys(t, "test-1")
			o := options(store, filepath.Join(t.TempDir(), "a", "b"))
			o.Compression, o.Listings, o.Keys = method, true, []signature.SecretKey{secret}
			if method == compress.None {
				o.Level = 0
			}
			var last Progress
			o.Progress = func(p Progress) { last = p }

			dry := o
			dry.DryRun = true
			if summary := mustWrite(t, dry); summary.Written != len(store.Infos) {
				t.Errorf("dry run: %+v", summary)
			}
			if _, err := os.Stat(o.Location); err == nil {
				t.Error("a dry run makes a cache")
			}
			summary := mustWrite(t, o)
			if summary.Written != len(store.Infos) || summary.Present != 0 || summary.FileBytes <= 0 {
				t.Errorf("%+v", summary)
			}
			if last.Paths != len(store.Infos) || last.TotalBytes != summary.NarBytes {
				t.Errorf("%+v", last)
			}
			checkCache(t, o.Location, len(store.Infos), Options{TrustedKeys: []signature.PublicKey{public}})
			listings, err := filepath.Glob(filepath.Join(o.Location, "*.ls"))
			if err != nil || len(listings) != len(store.Infos) {
				t.Errorf("%d listings, %v", len(listings), err)
			}
			before := listFiles(t, o.Location)
			if summary := mustWrite(t, o); summary.Written != 0 || summary.Present != len(store.Infos) {
				t.Errorf("again: %+v", summary)
			}
			if diff := cmp.Diff(before, listFiles(t, o.Location)); diff != "" {
				t.Errorf("writing again changes the cache:\n%s", diff)
			}
		})
	}
}

// listFiles returns names, inodes and times of all below dir.
func listFiles(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		list = append(list, path+info.ModTime().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A file URL, with what has to be escaped.
func TestWriteToFileURL(t *testing.T) {
	s := nartest.NewStore(t, 3, 1000)
	dir := filepath.Join(t.TempDir(), "a b#c")
	mustWrite(t, options(s, "file://"+strings.ReplaceAll(strings.ReplaceAll(dir, " ", "%20"), "#", "%23")))
	checkCache(t, dir, 3, Options{})
}

// What is half there is written again.
func TestWriteRepairs(t *testing.T) {
	s := nartest.NewStore(t, 8, 1000)
	o := options(s, t.TempDir())
	mustWrite(t, o)
	c, err := Open(t.Context(), o.Location, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	infos := closure(t, c)
	err = errors.Join(
		os.Remove(filepath.Join(o.Location, infos[1].URL)),
		os.Truncate(filepath.Join(o.Location, infos[2].URL), 10),
		os.Truncate(filepath.Join(o.Location, infos[3].HashPart()+".narinfo"), 100),
		os.Remove(filepath.Join(o.Location, infos[4].HashPart()+".narinfo")),
	)
	if err != nil {
		t.Fatal(err)
	}
	if summary := mustWrite(t, o); summary.Written != 4 {
		t.Errorf("%+v, want 4 written", summary)
	}
	checkCache(t, o.Location, 8, Options{})
}

// Whenever a narinfo is there, all that its path refers to is there, too, and
// its archive.
func TestWriteOrder(t *testing.T) {
	s := nartest.NewStore(t, 40, 3<<20)
	o := options(s, t.TempDir())
	o.Progress = func(Progress) {
		parts := mapOf(t, o.Location)
		for _, info := range s.Infos {
			if !parts[info.HashPart()] {
				continue
			}
			for _, reference := range info.References {
				if !parts[hashPart(reference)] {
					t.Errorf("%s is there before %s", info.StorePath, reference)
				}
			}
		}
	}
	mustWrite(t, o)
}

func mapOf(t *testing.T, dir string) map[string]bool {
	names, err := filepath.Glob(filepath.Join(dir, "*.narinfo"))
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]bool{}
	for _, name := range names {
		parts[strings.TrimSuffix(filepath.Base(name), ".narinfo")] = true
	}
	return parts
}

func TestWritersAtOnce(t *testing.T) {
	s := nartest.NewStore(t, 30, 1<<20)
	o := options(s, filepath.Join(t.TempDir(), "cache"))
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			_, err := Write(t.Context(), o)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	checkCache(t, o.Location, 30, Options{})
}

// What a killed process has left goes, what another one uses stays.
func TestWriteRemovesLeftovers(t *testing.T) {
	s := nartest.NewStore(t, 3, 1000)
	o := options(s, t.TempDir())
	left, used := filepath.Join(o.Location, tempPattern+"left"), filepath.Join(o.Location, tempPattern+"used")
	err := errors.Join(os.Mkdir(left, 0o700), os.Mkdir(used, 0o700), os.WriteFile(filepath.Join(left, "1"), nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(used)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	others := filepath.Join(o.Location, tempPattern)
	err = errors.Join(unix.Mkfifo(others+"fifo", 0o600), os.Symlink(t.TempDir(), others+"link"), os.Mkdir(others+"closed", 0))
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Mkdir(others+"foreign", 0o700), os.Chown(others+"foreign", 12345, -1)); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := os.Stat(others + "foreign"); err != nil {
				t.Error(err)
			}
		}()
	}
	mustWrite(t, o)
	if _, err := os.Stat(left); err == nil {
		t.Error("what a killed process has left is still there")
	}
	if _, err := os.Stat(used); err != nil {
		t.Error(err)
	}
}

func TestWriteErrors(t *testing.T) {
	s := nartest.NewStore(t, 4, 1000)
	write := func(change func(*WriteOptions)) error {
		o := options(s, t.TempDir())
		change(&o)
		_, err := Write(t.Context(), o)
		return err
	}
	changed := *s.Infos[3]
	changed.NarSize += 8
	shorter := *s.Infos[3]
	shorter.NarSize -= 8
	gone := *s.Infos[3]
	gone.StorePath, gone.References = nartest.Path(3, "gone"), nil
	for _, tt := range []struct {
		name   string
		change func(*WriteOptions)
		want   string
	}{
		{"a URL", func(o *WriteOptions) { o.Location = "https://user:secret@example.org/" }, "https://user:xxxxx@example.org/: a cache is written to a directory"},
		{"another scheme", func(o *WriteOptions) { o.Location = "s3://bucket" }, "not \"s3\""},
		{"a file URL with a host", func(o *WriteOptions) { o.Location = "file://host/dir" }, "a file URL is file:// and an absolute path"},
		{"settings", func(o *WriteOptions) { o.Location = "file:///dir?compression=zstd" }, "settings after the URL"},
		{"a level", func(o *WriteOptions) { o.Level = 40 }, "levels 1 to 19"},
		{"a method", func(o *WriteOptions) { o.Compression, o.Level = "bzip2", 0 }, "cannot be written"},
		{"a missing reference", func(o *WriteOptions) { o.Paths = s.Infos[1:] }, "which is neither given nor in the cache"},
		{"another store directory", func(o *WriteOptions) {
			if err := os.WriteFile(filepath.Join(o.Location, cacheInfoFile), []byte("StoreDir: /gnu/store\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, `the cache is for the store directory "/gnu/store"`},
		{"no store directory", func(o *WriteOptions) {
			if err := os.WriteFile(filepath.Join(o.Location, cacheInfoFile), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "it does not name a store directory"},
		{"another size", func(o *WriteOptions) { o.Paths = append(slices.Clone(s.Infos[:3]), &changed) }, "have been modified"},
		{"another, smaller size", func(o *WriteOptions) { o.Paths = append(slices.Clone(s.Infos[:3]), &shorter) }, "have been modified"},
		{"no files", func(o *WriteOptions) { o.Paths = append(slices.Clone(s.Infos[:3]), &gone) }, "no such file"},
	} {
		err := write(tt.change)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v shows a password", tt.name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Write(ctx, options(s, t.TempDir())); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context's end: %v", err)
	}
}

// After an error, what is there is a cache, and goroutines have ended.
func TestWriteModified(t *testing.T) {
	s := nartest.NewStore(t, 20, 30<<20)
	before := runtime.NumGoroutine()
	file := s.File(s.Infos[10].StorePath)
	if err := errors.Join(os.RemoveAll(file), os.WriteFile(file, []byte("changed"), 0o444)); err != nil {
		t.Fatal(err)
	}
	o := options(s, t.TempDir())
	_, err := Write(t.Context(), o)
	contents, ok := errors.AsType[*ContentsError](err)
	if !ok || contents.StorePath != s.Infos[10].StorePath || contents.ExitCode() != 1 {
		t.Fatalf("got %v", err)
	}
	c, err := Open(t.Context(), o.Location, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	closure(t, c)
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, %d before", after, before)
	}
}
