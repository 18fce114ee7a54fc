package storedb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// imageOf makes an image of a closure.
func imageOf(t testing.TB, closureInfo, from string) string {
	t.Helper()
	c, err := ReadClosureInfo(closureInfo)
	check(t, err)
	out := filepath.Join(t.TempDir(), "image")
	check(t, WriteImage(t.Context(), ImageOptions{Closure: c, From: from, Out: out}))
	return out
}

func TestWriteImage(t *testing.T) {
	c := newTestClosure(t)
	image := imageOf(t, c.info, "")
	if names := names(t, image); !slices.Equal(names, []string{imageDatabase, imageDatabaseSum, imageClosureDigest}) {
		t.Errorf("the image has %v", names)
	}
	// The same bytes again, whatever the order of the paths is, over another.
	closure := c.read(t)
	slices.Reverse(closure.Paths)
	again := filepath.Join(t.TempDir(), "image")
	check(t, os.Mkdir(again, 0o755))
	for _, name := range []string{imageDatabase, imageDatabaseSum, imageClosureDigest} {
		check(t, os.WriteFile(filepath.Join(again, name), []byte("old"), 0o444))
	}
	check(t, WriteImage(t.Context(), ImageOptions{Closure: closure, Out: again}))
	for _, name := range names(t, image) {
		if !bytes.Equal(read(t, image, name), read(t, again, name)) {
			t.Errorf("%s of two images of a closure differ", name)
		}
	}
	if err := WriteImage(t.Context(), ImageOptions{Closure: &Closure{}, Out: image}); err == nil {
		t.Error("an image of a closure without registration was written")
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func read(t *testing.T, elem ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	check(t, err)
	return data
}

// Nix finds all it needs in a state that was made with an image or without one,
// and changes nothing.
func TestCreateState(t *testing.T) {
	c := newTestClosure(t)
	source := c.root
	image := imageOf(t, c.info, source)
	// What Nix makes for whoever opens a store, or only if there is room.
	ofUser := func(line string) bool {
		return strings.Contains(line, "/db/reserved ") || strings.Contains(line, "/per-user/")
	}
	newer := os.Getenv("VM_PREBUILD_TRIXIE") // see nix/offline/trixie.sh
	if newer == "" {
		newer = "/var/cache/vm-prebuild/trixie"
	}
	for _, test := range []struct{ name, image, nix string }{
		{"from registration", "", "nix-store"}, {"from image", image, "nix-store"}, {"for a newer Nix", image, newer + "/bin/nix-store"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "a", "root")
			state, err := CreateState(t.Context(), StateOptions{Root: root, ClosureInfo: c.info, From: source, DBImage: test.image})
			check(t, err)
			if state.Paths != len(c.paths) || state.FromImage != (test.image != "") {
				t.Errorf("state %+v", state)
			}
			file := filepath.Join(root, databaseDir, databaseName)
			if !bytes.Equal(read(t, file), read(t, image, imageDatabase)) {
				t.Error("the database is not the image")
			}
			copyTree(t, filepath.Join(source, storeDir), filepath.Join(root, "nix"))
			before := slices.DeleteFunc(listing(t, filepath.Join(root, "nix")), ofUser)
			if got := nix(t, test.nix, "--store", root, "--query", "--size", pathA); got == "" {
				t.Error("no size")
			}
			nix(t, test.nix, "--verify", "--check-contents", "--store", root)
			if diff := cmp.Diff(before, slices.DeleteFunc(listing(t, filepath.Join(root, "nix")), ofUser)); diff != "" {
				t.Errorf("Nix has changed the store: %s", diff)
			}
			if !bytes.Equal(read(t, file), read(t, image, imageDatabase)) {
				t.Error("Nix has changed the database")
			}
			if got := queryString(t, root, "pragma integrity_check"); got != "ok" {
				t.Errorf("integrity check: %s", got)
			}
		})
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestCreateStateErrors(t *testing.T) {
	c := newTestClosure(t)
	image := imageOf(t, c.info, "")
	sqlite := func(file, statements string) {
		db, err := connect(file, "_journal_mode=OFF")
		check(t, err)
		check(t, db.exec(t.Context(), statements))
		check(t, db.exec(t.Context(), "pragma journal_mode = wal"))
		check(t, db.Close())
	}
	resum := func(dir string) {
		sum, err := checksumOfFile(filepath.Join(dir, imageDatabase))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(dir, imageDatabaseSum), fmt.Appendf(nil, "%x\n", sum), 0o644))
	}
	alter := func(statements string) func(dir string) {
		return func(dir string) {
			sqlite(filepath.Join(dir, imageDatabase), statements)
			resum(dir)
		}
	}
	tests := []struct {
		name  string
		alter func(dir string)
		file  string // below the image
		want  string
	}{
		{"no image", func(dir string) { check(t, os.RemoveAll(dir)) }, "/db.sqlite.crc32c", "no such file"},
		{"no database", func(dir string) { check(t, os.Remove(dir+"/db.sqlite")) }, "/db.sqlite", "no such file"},
		{"another closure", func(dir string) {
			check(t, os.WriteFile(dir+"/registration.blake3", []byte(strings.Repeat("0", 64)+"\n"), 0o644))
		}, "", "is the database image of another closure"},
		{"digest that is none", func(dir string) {
			check(t, os.WriteFile(dir+"/registration.blake3", []byte(strings.Repeat("0", 64)), 0o644))
		}, "/registration.blake3", "is not 64 hexadecimal digits, followed by a newline"},
		{"cut off", func(dir string) { check(t, os.Truncate(dir+"/db.sqlite", 8192)) }, "/db.sqlite", "damaged: its checksum is not the one in db.sqlite.crc32c"},
		{"cut off and summed", func(dir string) { check(t, os.Truncate(dir+"/db.sqlite", 8192)); resum(dir) }, "/db.sqlite", "corrupt: database disk image is malformed"},
		{"no database at all", func(dir string) {
			check(t, os.WriteFile(dir+"/db.sqlite", bytes.Repeat([]byte{2}, 8192), 0o644))
			resum(dir)
		}, "/db.sqlite", "not an SQLite database"},
		{"a directory", func(dir string) {
			check(t, os.Remove(dir+"/db.sqlite"))
			check(t, os.Mkdir(dir+"/db.sqlite", 0o755))
		}, "/db.sqlite", "is not a regular file"},
		{"journal", func(dir string) {
			db, err := connect(dir+"/db.sqlite", "")
			check(t, err)
			check(t, db.exec(t.Context(), "pragma journal_mode = delete"))
			check(t, db.Close())
			resum(dir)
		}, "/db.sqlite", "not a database with a write-ahead log"},
		{"trigger", alter("create trigger t after insert on ValidPaths begin delete from Refs; end"), "/db.sqlite", "has another schema than images made by this program"},
		{"table", alter("create table t (x)"), "/db.sqlite", "has another schema than images made by this program"},
		{"no index", alter("drop index IndexReference"), "/db.sqlite", "has another schema than images made by this program"},
		{"no migrations", alter("drop table SchemaMigrations"), "/db.sqlite", "not the database of a Nix store: no such table: SchemaMigrations"},
		{"migration", alter("insert into SchemaMigrations values ('x')"), "/db.sqlite", "has another schema than images made by this program"},
		{"path less", alter("delete from ValidPaths where path = '" + pathB + "'"), "/db.sqlite", ""},
		{"reference more", alter("insert into Refs values (1, 999)"), "/db.sqlite", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "image")
			copyTree(t, image, dir)
			test.alter(dir)
			root := filepath.Join(t.TempDir(), "root")
			_, err := CreateState(t.Context(), StateOptions{Root: root, ClosureInfo: c.info, DBImage: dir})
			input := new(InputError)
			if !errors.As(err, &input) || input.File != dir+test.file || !strings.HasPrefix(input.Reason, test.want) {
				t.Errorf("err = %v, want %s%s: %s", err, dir, test.file, test.want)
			}
			if _, err := os.Stat(root); err == nil {
				t.Error("the store was made")
			}
		})
	}
	root := t.TempDir()
	check(t, func() error {
		_, err := CreateState(t.Context(), StateOptions{Root: root, ClosureInfo: c.info})
		return err
	}())
	if _, err := CreateState(t.Context(), StateOptions{Root: root, ClosureInfo: c.info}); err == nil || !strings.Contains(err.Error(), "there is a store already") {
		t.Errorf("a second time: %v", err)
	}
}

// An import into an empty store takes the image, one into another store does
// not need it, and none takes that of another closure.
func TestImportWithImage(t *testing.T) {
	c := newTestClosure(t)
	image := imageOf(t, c.info, "")
	root := filepath.Join(t.TempDir(), "root")
	options := c.options(t, root)
	options.DBImage = image
	_, err := Import(t.Context(), options)
	check(t, err)
	verifyStore(t, root)
	if !bytes.Equal(read(t, root, databaseDir, databaseName), read(t, image, imageDatabase)) {
		t.Error("the database is not the image")
	}

	other := newTestClosure(t)
	other.add(t, pathZ, "more")
	other.write(t)
	options = other.options(t, root)
	options.DBImage = imageOf(t, other.info, "")
	summary, err := Import(t.Context(), options)
	check(t, err)
	if summary.Placed != 1 || summary.AlreadyValid != len(c.paths) {
		t.Errorf("summary %+v", summary)
	}
	verifyStore(t, root)

	options.Store = filepath.Join(t.TempDir(), "root")
	options.DBImage = image
	_, err = Import(t.Context(), options)
	if input := new(InputError); !errors.As(err, &input) || input.Reason != "is the database image of another closure" {
		t.Errorf("err = %v", err)
	}
}

// The cost of making a store in which a closure is valid, from the files that
// describe it, with an image and without.
func BenchmarkCreateState(b *testing.B) {
	info := b.TempDir()
	registration := fakeRegistration(30000)
	check(b, os.WriteFile(filepath.Join(info, registrationFile), registration, 0o644))
	infos, err := ParseRegistration(bytes.NewReader(registration), registrationFile)
	check(b, err)
	check(b, os.WriteFile(filepath.Join(info, StorePathsFile), []byte(strings.Join(paths(infos), "\n")+"\n"), 0o644))
	image := imageOf(b, info, "")
	for name, image := range map[string]string{"registration": "", "image": image} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, err := CreateState(b.Context(), StateOptions{Root: filepath.Join(b.TempDir(), "root"), ClosureInfo: info, DBImage: image})
				check(b, err)
			}
		})
	}
}
