package warm

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/machine"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// saved makes a state, of which each file has something of the name in it, and the
// memory so many bytes of noise.
func saved(t *testing.T, s Store, name string, noise ...int) string {
	t.Helper()
	inputs := []machine.Input{{Name: "machine", Value: name}, {Name: "QEMU", Value: "7"}}
	key := keyOf(inputs)
	d, err := s.draft(key)
	must(t, err)
	defer d.discard()
	for _, file := range []string{d.files().RAM, d.files().Disk, d.files().Devices} {
		f, err := os.Create(file)
		must(t, err)
		must(t, f.Truncate(1<<20))
		_, err = f.WriteAt([]byte(filepath.Base(file)+" of "+name), 300<<10)
		must(t, err)
		must(t, f.Close())
	}
	for _, n := range noise {
		b := make([]byte, n)
		_, _ = rand.Read(b) // never fails
		must(t, os.WriteFile(d.files().RAM, b, 0o600))
	}
	must(t, d.commit(t.Context(), manifest{Inputs: inputs, Hardware: json.RawMessage(`{"a":1}`), Saved: time.Unix(1, 0).UTC()}))
	return key
}

func TestStore(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "a", "states")}
	if _, err := s.open(t.Context(), "x-1"); !errors.Is(err, errNoState) {
		t.Error(err)
	}
	key := saved(t, s, "x")
	st, err := s.open(t.Context(), key)
	must(t, err)
	if string(st.manifest.Hardware) != `{"a":1}` {
		t.Errorf("hardware %s", st.manifest.Hardware)
	}
	must(t, st.unchanged())
	if names := names(t, s.Dir); !slices.Equal(names, []string{key}) {
		t.Errorf("the store has %q", names)
	}
	must(t, s.remove(st, key))
	if names := names(t, s.Dir); len(names) > 0 {
		t.Errorf("the store has %q", names)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// flip changes one bit of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 4
	_, err = f.WriteAt(b[:], at)
	must(t, err)
}

// Whatever happens to the files of a state, it is not opened then: each file is
// cut short, made longer, changed in one bit (of data, of a hole), removed, made
// another's, a link and a directory.
func TestDamage(t *testing.T) {
	damages := map[string]func(t *testing.T, path, other string){
		"truncated": func(t *testing.T, path, _ string) { must(t, os.Truncate(path, 200)) },
		"empty":     func(t *testing.T, path, _ string) { must(t, os.Truncate(path, 0)) },
		"longer":    func(t *testing.T, path, _ string) { must(t, os.Truncate(path, 2<<20)) },
		"flipped":   func(t *testing.T, path, _ string) { flip(t, path, min(300<<10, size(t, path)/2)) },
		"flipped at the same time": func(t *testing.T, path, _ string) {
			info, err := os.Stat(path)
			must(t, err)
			flip(t, path, min(900<<10, size(t, path)-2))
			must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
		"removed": func(t *testing.T, path, _ string) { must(t, os.Remove(path)) },
		"another's": func(t *testing.T, path, other string) {
			must(t, os.Remove(path))
			must(t, os.Link(other, path))
		},
		"a link": func(t *testing.T, path, _ string) {
			must(t, os.Rename(path, path+".x"))
			must(t, os.Symlink(path+".x", path))
		},
		"a directory": func(t *testing.T, path, _ string) {
			must(t, os.Remove(path))
			must(t, os.Mkdir(path, 0o755))
		},
	}
	for damage, do := range damages {
		for _, file := range []string{ramFile, diskFile, devicesFile, manifestFile} {
			t.Run(damage+"/"+file, func(t *testing.T) {
				s := Store{Dir: t.TempDir()}
				key, other := saved(t, s, "x"), saved(t, s, "y")
				do(t, filepath.Join(s.Dir, key, file), filepath.Join(s.Dir, other, file))
				st, err := s.open(t.Context(), key)
				if err == nil {
					t.Fatal("it was opened")
				}
				if strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), filepath.Join(s.Dir, key)) {
					t.Errorf("%q is not one line with the file's name", err)
				}
				must(t, s.remove(st, key))
				if _, err := s.open(t.Context(), other); err != nil {
					t.Errorf("the other: %v", err)
				}
			})
		}
	}
	t.Run("swapped", func(t *testing.T) {
		s := Store{Dir: t.TempDir()}
		key, other := saved(t, s, "x"), saved(t, s, "y")
		must(t, os.Rename(filepath.Join(s.Dir, key), filepath.Join(s.Dir, "z")))
		must(t, os.Rename(filepath.Join(s.Dir, other), filepath.Join(s.Dir, key)))
		if _, err := s.open(t.Context(), key); err == nil || !strings.Contains(err.Error(), "another machine") {
			t.Error(err)
		}
	})
	t.Run("changed while it starts", func(t *testing.T) {
		s := Store{Dir: t.TempDir()}
		key := saved(t, s, "x")
		st, err := s.open(t.Context(), key)
		must(t, err)
		flip(t, st.files().RAM, 0)
		if err := st.unchanged(); err == nil {
			t.Error("nobody notices")
		}
	})
	t.Run("newer", func(t *testing.T) {
		s := Store{Dir: t.TempDir()}
		key := saved(t, s, "x")
		must(t, os.WriteFile(filepath.Join(s.Dir, key, manifestFile), []byte(`{"format":1000,"surprise":[]}`), 0o644))
		if _, err := s.open(t.Context(), key); err == nil || !strings.Contains(err.Error(), "format 1000") {
			t.Error(err)
		}
	})
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Size()
}

// The seal only saves reading: without it, with another's, or in a copy, a state
// is as good.
func TestSeal(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	key := saved(t, s, "x")
	path := filepath.Join(s.Dir, key, sealFile)
	first, err := os.ReadFile(path)
	must(t, err)
	for _, text := range []string{"", "{", `{"manifest":"","files":{}}`, strings.Replace(string(first), "1", "2", 3)} {
		must(t, os.WriteFile(path, []byte(text), 0o644))
		_, err := s.open(t.Context(), key)
		must(t, err)
		if again, err := os.ReadFile(path); err != nil || string(again) != string(first) {
			t.Errorf("%q became %q, %v", text, again, err)
		}
	}
	copied := Store{Dir: t.TempDir()}
	must(t, os.CopyFS(copied.Dir, os.DirFS(s.Dir)))
	st, err := copied.open(t.Context(), key)
	must(t, err)
	_, sum, err := readManifest(filepath.Join(st.dir, manifestFile))
	must(t, err)
	if !st.sealed(sum) {
		t.Error("a copy that was read is not sealed")
	}
}

// Of two who save the same, the first wins; what the dead leave is removed, and
// what the living do is not.
func TestDrafts(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	alive, err := s.draft("x")
	must(t, err)
	dead, err := s.draft("x")
	must(t, err)
	dead.lock.Close()
	key := saved(t, s, "x")
	st, err := s.open(t.Context(), key)
	must(t, err)
	if again := saved(t, s, "x"); again != key {
		t.Errorf("%s and %s", key, again)
	}
	must(t, st.unchanged())
	want := []string{filepath.Base(alive.dir), key}
	if got := names(t, s.Dir); !slices.Equal(got, want) {
		t.Errorf("the store has %q, want %q", got, want)
	}
	alive.discard()
}

// A state that has taken another's place is not removed for it.
func TestRemoveOnlyWhatWasFound(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	key := saved(t, s, "x")
	st, err := s.open(t.Context(), key)
	must(t, err)
	keep := filepath.Join(s.Dir, "keep") // so that its inode is not used again
	must(t, os.Rename(st.dir, keep))
	saved(t, s, "x")
	must(t, s.remove(st, key))
	_, err = s.open(t.Context(), key)
	must(t, err)
}

// A collection removes what is damaged, what is old, what was used least lately,
// and nothing else.
func TestCollect(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "states")}
	if all, err := s.List(); err != nil || len(all) > 0 {
		t.Errorf("%v %v", all, err)
	}
	if removed, err := s.Collect(Limits{}); err != nil || len(removed) > 0 {
		t.Errorf("%v %v", removed, err)
	}
	keys := map[string]string{}
	for _, name := range []string{"a", "b", "c", "damaged"} {
		keys[name] = saved(t, s, name)
	}
	must(t, os.Truncate(filepath.Join(s.Dir, keys["damaged"], ramFile), 1))
	used := func(name string, age time.Duration) {
		must(t, os.Chtimes(filepath.Join(s.Dir, keys[name]), time.Time{}, time.Now().Add(-age)))
	}
	used("a", 3*time.Hour)
	used("b", 2*time.Hour)
	used("c", time.Hour)
	dead, err := s.draft("x")
	must(t, err)
	dead.lock.Close()
	// What is not ours stays.
	foreign := []string{
		filepath.Join(s.Dir, "thesis"),
		filepath.Join(s.Dir, "of-"+strings.Repeat("a", 32), "deep"),
	}
	for _, dir := range foreign {
		must(t, os.MkdirAll(dir, 0o755))
	}

	all, err := s.List()
	must(t, err)
	var order []string
	for _, e := range all {
		order = append(order, e.Machine)
		if e.Bytes < 3*blockBytes/16 || e.Bytes > 1<<20 || (e.Machine == "damaged") != (e.Problem != "") {
			t.Errorf("%+v", e)
		}
	}
	if strings.Join(order, " ") != "damaged c b a" {
		t.Errorf("in the order %q", order)
	}
	must(t, s.Verify(t.Context(), keys["a"]))
	if err := s.Verify(t.Context(), keys["damaged"]); err == nil {
		t.Error("what is damaged is verified")
	}
	if _, err := s.open(t.Context(), keys["a"]); err != nil { // now it is the last one used
		t.Fatal(err)
	}
	for _, test := range []struct {
		limits Limits
		want   string
	}{
		{Limits{Bytes: -1}, "damaged"},
		{Limits{Bytes: -1, Age: 90 * time.Minute}, "b"},
		{Limits{Bytes: all[1].Bytes}, "c"},
		{Limits{Bytes: all[1].Bytes}, ""},
		{Limits{}, "a"},
	} {
		removed, err := s.Collect(test.limits)
		must(t, err)
		var gone []string
		for _, e := range removed {
			gone = append(gone, e.Machine)
		}
		if strings.Join(gone, " ") != test.want {
			t.Errorf("%+v removes %q, want %q", test.limits, gone, test.want)
		}
	}
	if left := names(t, s.Dir); len(left) != len(foreign) {
		t.Errorf("%q are left", left)
	}
	for _, dir := range foreign {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
}

// What a newer program has saved goes for want of space only.
func TestCollectNewer(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	dir := filepath.Join(s.Dir, "newer-"+strings.Repeat("0", 32))
	must(t, os.Mkdir(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, manifestFile), []byte(`{"format":1000,"sha256":"","manifest":{}}`), 0o600))
	for i, limits := range []Limits{{Bytes: -1}, {}} {
		removed, err := s.Collect(limits)
		must(t, err)
		if len(removed) != i || i == 1 && !strings.Contains(removed[0].Problem, "has format 1000") {
			t.Errorf("%+v removes %+v", limits, removed)
		}
	}
}

// Of many who save at once, none is in another's way.
func TestManyDrafts(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 200 {
				d, err := s.draft("x")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stat(d.dir); err != nil {
					t.Error(err)
				}
				d.discard()
			}
		})
	}
	wg.Wait()
}

func TestDigestKnowsNoHoles(t *testing.T) {
	dir := t.TempDir()
	sum := func(name string, write func(f *os.File)) string {
		f, err := os.Create(filepath.Join(dir, name))
		must(t, err)
		defer f.Close()
		write(f)
		sum, err := digest(t.Context(), f)
		must(t, err)
		return sum
	}
	at := func(f *os.File, b byte, at int64) {
		_, err := f.WriteAt([]byte{b}, at)
		must(t, err)
	}
	sparse := sum("sparse", func(f *os.File) { at(f, 1, 1<<20); must(t, f.Truncate(3<<20+5)) })
	full := sum("full", func(f *os.File) {
		_, err := f.Write(make([]byte, 3<<20+5))
		must(t, err)
		at(f, 1, 1<<20)
	})
	if sparse != full {
		t.Error("holes are not zeros")
	}
	for name, write := range map[string]func(f *os.File){
		"shorter": func(f *os.File) { at(f, 1, 1<<20); must(t, f.Truncate(3<<20+4)) },
		"moved":   func(f *os.File) { at(f, 1, 1<<20+blockBytes); must(t, f.Truncate(3<<20+5)) },
		"tail":    func(f *os.File) { at(f, 1, 1<<20); must(t, f.Truncate(3<<20+5)); at(f, 1, 3<<20+4) },
		"empty":   func(*os.File) {},
	} {
		if sum(name, write) == sparse {
			t.Errorf("%s has the digest of another file", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err := os.Open(filepath.Join(dir, "full"))
	must(t, err)
	defer f.Close()
	if _, err := digest(ctx, f); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestExplain(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	packed := pack(t, s, saved(t, s, "x"))
	for _, test := range []struct {
		inputs []machine.Input
		want   string
	}{
		{[]machine.Input{{Name: "machine", Value: "x"}, {Name: "QEMU", Value: "8"}}, " differs in: QEMU"},
		{[]machine.Input{{Name: "machine", Value: "x"}, {Name: "$QEMU_OPTS", Value: "-m 1"}}, " differs in: $QEMU_OPTS, QEMU"},
		{[]machine.Input{{Name: "machine", Value: "y"}, {Name: "QEMU", Value: "8"}}, ""},
	} {
		for _, got := range []string{s.explain(test.inputs, nil), (Store{Dir: "/none"}).explain(test.inputs, []string{packed})} {
			if !strings.HasSuffix(got, test.want) || test.want == "" && got != "" {
				t.Errorf("%v: %q, want %q", test.inputs, got, test.want)
			}
		}
	}
}

func TestShares(t *testing.T) {
	got, err := shares(`22 1 0:21 / /proc rw,relatime - proc proc rw
31 1 0:30 / /tmp/shared rw,nosuid,relatime shared:4 - 9p shared rw,sync,dirsync,access=client,msize=262144,trans=virtio
32 1 0:31 / /mnt/a\134b\011c ro - virtiofs my\040share rw
33 1 0:32 / /cached rw,noatime master:2 propagate_from:1 - 9p c rw,cache=f,access=client
`)
	must(t, err)
	want := []mount{
		{"shared", "/tmp/shared", "9p", []string{"rw", "nosuid", "relatime", "rw", "sync", "dirsync"}, "access=client,msize=262144,trans=virtio"},
		{"my share", "/mnt/a\\b\tc", "virtiofs", []string{"ro", "rw"}, ""},
		{"c", "/cached", "9p", []string{"rw", "noatime", "rw"}, "cache=0xf,access=client"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for i, flags := range []uint64{
		unix.MS_NOSUID | unix.MS_RELATIME | unix.MS_SYNCHRONOUS | unix.MS_DIRSYNC,
		unix.MS_RDONLY | unix.MS_STRICTATIME,
		unix.MS_NOATIME,
	} {
		if got[i].flags() != flags {
			t.Errorf("%s: flags %#x, not %#x", got[i].Target, got[i].flags(), flags)
		}
	}
	for line, reason := range map[string]string{
		"nonsense\n": "mountinfo has the line",
		"34 1 0:30 /sub /data rw,relatime - 9p shared rw,trans=virtio\n": "/data is a part (/sub) of a share",
	} {
		if _, err := shares(line); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestParseReady(t *testing.T) {
	for _, text := range []string{"shell", "unit:multi-user.target", "file:/a:b", "command:test -e x"} {
		if r, err := ParseReady(text); err != nil || r.String() != text {
			t.Errorf("%q: %v %v", text, r, err)
		}
	}
	for _, text := range []string{"", "unit", "unit:", "socket:1", "shell:", "shell:x"} {
		if r, err := ParseReady(text); err == nil {
			t.Errorf("%q became %v", text, r)
		}
	}
}
