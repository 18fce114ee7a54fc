package warm

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vm-prebuild/testrun/accel"
	"vm-prebuild/testrun/machine"
)

// tree is what a directory has, by name.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = string(text)
		return err
	}))
	return all
}

// pack packs a state and returns the directory of packed states.
func pack(t *testing.T, s Store, key string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "packed")
	p, err := s.Pack(t.Context(), key, dir, PackOptions{})
	must(t, err)
	if p.There || p.PackedBytes <= 0 || p.PackedBytes > p.Bytes {
		t.Errorf("%+v", p)
	}
	return dir
}

// What was packed is, in another cache, the state that it was; from the same state
// comes the same directory.
func TestPack(t *testing.T) {
	s, other := Store{Dir: t.TempDir()}, Store{Dir: filepath.Join(t.TempDir(), "states")}
	key := saved(t, s, "x")
	dir := pack(t, s, key)
	if again := pack(t, s, key); !maps.Equal(tree(t, again), tree(t, dir)) {
		t.Error("packing it again makes something else")
	}
	if p, err := s.Pack(t.Context(), key, dir, PackOptions{}); err != nil || !p.There {
		t.Errorf("packing it there again: %+v, %v", p, err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{key}) {
		t.Errorf("the directory has %q", got)
	}
	there, err := other.Unpack(t.Context(), dir, key)
	if there || err != nil {
		t.Fatal(there, err)
	}
	st, err := other.open(t.Context(), key)
	must(t, err)
	_, sum, err := readManifest(filepath.Join(st.dir, manifestFile))
	must(t, err)
	if !st.sealed(sum) {
		t.Error("it is not sealed")
	}
	before, after := tree(t, filepath.Join(s.Dir, key)), tree(t, filepath.Join(other.Dir, key))
	delete(before, "/"+sealFile)
	delete(after, "/"+sealFile)
	if !maps.Equal(before, after) {
		t.Error("it became another")
	}
	if sparse := diskBytes(filepath.Join(other.Dir, key)); sparse > diskBytes(filepath.Join(s.Dir, key)) {
		t.Errorf("unpacked, it takes %d bytes", sparse)
	}
	if there, err := other.Unpack(t.Context(), dir, key); err != nil || !there {
		t.Error("it is unpacked again", there, err)
	}
	// What is damaged in the cache is unpacked again.
	flip(t, st.files().RAM, 5)
	if there, err := other.Unpack(t.Context(), dir, key); err != nil || there {
		t.Error("damage is not mended", there, err)
	}
	must(t, other.Verify(t.Context(), key))

	// A packed state that is damaged is packed again, once somebody sees it.
	must(t, os.Truncate(filepath.Join(dir, key, manifestFile), 3))
	if p, err := s.Pack(t.Context(), key, dir, PackOptions{}); err != nil || p.There {
		t.Error(p, err)
	}
	if _, _, err := readPacked(filepath.Join(dir, key)); err != nil {
		t.Error(err)
	}
	if _, err := s.Pack(t.Context(), "x-1", dir, PackOptions{}); err == nil || !strings.Contains(err.Error(), `no state "x-1"`) {
		t.Error(err)
	}
}

// edit changes the manifest of a packed state, with all checksums right.
func edit(t *testing.T, path string, change func(*manifest)) {
	t.Helper()
	m, _, err := readPacked(filepath.Dir(path))
	must(t, err)
	change(&m)
	text, err := m.encode()
	must(t, err)
	text, err = json.Marshal(packedEnvelope{packing, text})
	must(t, err)
	must(t, os.WriteFile(path, text, 0o644))
}

// Whatever is wrong with a packed state, there is one line that names it, and no
// state; what else is in the cache stays.
func TestHostilePacked(t *testing.T) {
	ram, disk := ramFile+packedSuffix, diskFile+packedSuffix
	cases := map[string]struct {
		change func(t *testing.T, dir string)
		want   string
	}{
		"no manifest":   {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, manifestFile))) }, "has no packed state"},
		"no RAM":        {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, ram))) }, "ram.zst is missing"},
		"truncated":     {func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, ram), 100)) }, "ram.zst is damaged: it is cut off"},
		"a flipped bit": {func(t *testing.T, dir string) { flip(t, filepath.Join(dir, ram), 20) }, "ram.zst is damaged: frame 0"},
		"swapped": {func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, ram), filepath.Join(dir, "x")))
			must(t, os.Rename(filepath.Join(dir, disk), filepath.Join(dir, ram)))
			must(t, os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, disk)))
		}, "is damaged: its content is not what was saved"},
		"a symbolic link": {func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, ram), filepath.Join(dir, "x")))
			must(t, os.Symlink("x", filepath.Join(dir, ram)))
		}, "ram.zst is a symbolic link"},
		"a symbolic link for a manifest": {func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, manifestFile), filepath.Join(dir, "x")))
			must(t, os.Symlink("x", filepath.Join(dir, manifestFile)))
		}, "manifest.json is a symbolic link"},
		"a symbolic link for all": {func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+"x"))
			must(t, os.Symlink(dir+"x", dir))
		}, "is not a directory"},
		"a directory for a file": {func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, ram)))
			must(t, os.Mkdir(filepath.Join(dir, ram), 0o755))
		}, "ram.zst is not a file"},
		"a newer packing": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, manifestFile), []byte(`{"packing":2,"surprise":[]}`), 0o644))
		}, "has the packing 2; this program knows 1"},
		"a newer format": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, manifestFile), []byte(`{"packing":1,"state":{"format":99}}`), 0o644))
		}, "has format 99"},
		"no JSON": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, manifestFile), []byte(`{`), 0o644))
		}, "manifest.json: "},
		"another machine's": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, manifestFile), func(m *manifest) { m.Inputs[0].Value = "y" })
		}, "is the state of another machine"},
		"a name with slashes": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, manifestFile), func(m *manifest) { m.Files["../../etc/passwd"] = m.Files[ramFile] })
		}, `it has the unknown file "../../etc/passwd"`},
		"a lie about a size": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, manifestFile), func(m *manifest) { m.Files[ramFile] = fileRecord{5 << 20, m.Files[ramFile].Digest} })
		}, "ram.zst is damaged: it has 1 frames"},
		"a size beyond all disks": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, manifestFile), func(m *manifest) { m.Files[ramFile] = fileRecord{1 << 60, m.Files[ramFile].Digest} })
		}, "its files have "},
		"a negative size": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, manifestFile), func(m *manifest) { m.Files[ramFile] = fileRecord{-1, m.Files[ramFile].Digest} })
		}, "its files have "},
		"another digest": {func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, manifestFile), func(m *manifest) { m.Files[ramFile] = fileRecord{1 << 20, "00"} })
		}, "ram.zst is damaged: its content is not what was saved"},
		"another host's": {func(t *testing.T, dir string) {
			m, _, err := readPacked(dir)
			must(t, err)
			m.Inputs = append(m.Inputs, machine.Input{Name: machine.HostCPUInput, Value: "Z80"})
			text, err := m.encode()
			must(t, err)
			text, err = json.Marshal(packedEnvelope{packing, text})
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, manifestFile), text, 0o644))
			must(t, os.Rename(dir, filepath.Join(filepath.Dir(dir), keyOf(m.Inputs))))
		}, "was saved on a host whose CPU is Z80"},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			s, other := Store{Dir: t.TempDir()}, Store{Dir: t.TempDir()}
			key := saved(t, s, "x")
			dir := pack(t, s, key)
			kept := saved(t, other, "kept")
			test.change(t, filepath.Join(dir, key))
			if all := names(t, dir); len(all) == 1 {
				key = all[0]
			}
			_, err := other.Unpack(t.Context(), dir, key)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), dir) {
				t.Errorf("%v; want one line with %q and %s", err, test.want, dir)
			}
			if got := names(t, other.Dir); !slices.Equal(got, []string{kept}) {
				t.Errorf("the cache has %q", got)
			}
		})
	}
	for _, key := range []string{"../x", "/etc", ""} {
		if _, err := (Store{Dir: t.TempDir()}).Unpack(t.Context(), t.TempDir(), key); err == nil {
			t.Errorf("%q was taken for a name", key)
		}
	}
}

// A state that ran on the host's own CPU is not pushed, is packed on request, and is
// taken by the same host.
func TestHostBound(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	cpu, err := accel.HostCPU()
	must(t, err)
	inputs := []machine.Input{{Name: "machine", Value: "x"}, {Name: machine.HostCPUInput, Value: cpu}}
	d, err := s.draft(keyOf(inputs))
	must(t, err)
	defer d.discard()
	for _, file := range []string{d.files().RAM, d.files().Devices} {
		must(t, os.WriteFile(file, []byte("x"), 0o600))
	}
	must(t, d.commit(t.Context(), manifest{Inputs: inputs, Hardware: json.RawMessage(`{}`)}))
	dir := t.TempDir()
	_, err = s.Pack(t.Context(), d.key, dir, PackOptions{})
	var bound *HostBoundError
	if !errors.As(err, &bound) || !strings.Contains(err.Error(), d.key+" ran under KVM") || len(names(t, dir)) > 0 {
		t.Errorf("%v", err)
	}
	_, err = s.Pack(t.Context(), d.key, dir, PackOptions{HostBound: true})
	must(t, err)
	_, err = (Store{Dir: t.TempDir()}).Unpack(t.Context(), dir, d.key)
	must(t, err)
}

// Of many who need a state that is packed, one unpacks it; a directory that has it
// damaged is passed over; and a lock that nobody gives back is not waited for for ever.
func TestFetch(t *testing.T) {
	s, other := Store{Dir: t.TempDir()}, Store{Dir: filepath.Join(t.TempDir(), "states")}
	key := saved(t, s, "x")
	good, bad, none := pack(t, s, key), pack(t, s, key), t.TempDir()
	flip(t, filepath.Join(bad, key, ramFile+packedSuffix), 20)
	if _, err := other.fetch(t.Context(), key, []string{none}); !errors.Is(err, errNoState) {
		t.Error(err)
	}
	if _, err := other.fetch(t.Context(), key, []string{bad, none}); err == nil || !strings.Contains(err.Error(), bad) {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := other.fetch(t.Context(), key, []string{none, bad, good}); err != nil {
				t.Error(err)
			}
			if _, err := other.open(t.Context(), key); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := names(t, other.Dir); !slices.Equal(got, []string{key}) {
		t.Errorf("the cache has %q", got)
	}
	unlock, err := other.claim(t.Context(), "z")
	must(t, err)
	defer unlock()
	begin := time.Now()
	second, err := claim(t.Context(), other.Dir, "z", 100*time.Millisecond)
	must(t, err)
	second()
	if took := time.Since(begin); took < 100*time.Millisecond || took > 5*time.Second {
		t.Errorf("waited for %v", took)
	}
}

// unpackEnv has this test binary unpack, for TestKilledUnpacker: "CACHE:DIR:KEY".
const unpackEnv = "WARM_TEST_UNPACK"

func TestUnpackInChild(t *testing.T) {
	what := strings.Split(os.Getenv(unpackEnv), ":")
	if len(what) != 3 {
		t.Skip("it is for TestKilledUnpacker")
	}
	if _, err := (Store{Dir: what[0]}).fetch(t.Context(), what[2], []string{what[1]}); err != nil {
		t.Error(err)
	}
}

// Whenever an unpacker is killed, there is the whole state or none, and the next one
// neither waits nor finds what is left in its way.
func TestKilledUnpacker(t *testing.T) {
	s, other := Store{Dir: t.TempDir()}, Store{Dir: t.TempDir()}
	key := saved(t, s, "x", 40<<20)
	dir := pack(t, s, key)
	killed := 0
	for i := range 12 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestUnpackInChild$")
		cmd.Env = append(os.Environ(), unpackEnv+"="+other.Dir+":"+dir+":"+key)
		must(t, cmd.Start())
		// The children take ever longer to be killed: the first in their start.
		for range i * 3 {
			if drafts, _ := filepath.Glob(filepath.Join(other.Dir, draftPrefix+"*")); len(drafts) > 0 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Duration(i) * 5 * time.Millisecond)
		must(t, cmd.Process.Kill())
		if cmd.Wait() != nil {
			killed++
		}
		switch st, err := other.open(t.Context(), key); {
		case err == nil:
			must(t, other.Verify(t.Context(), key))
			must(t, other.remove(st, key))
		case !errors.Is(err, errNoState):
			t.Error(err)
		}
	}
	if killed < 3 {
		t.Errorf("only %d of 12 were killed", killed)
	}
	begin := time.Now()
	_, err := other.fetch(t.Context(), key, []string{dir})
	must(t, err)
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if got := names(t, other.Dir); !slices.Equal(got, []string{key}) {
		t.Errorf("the cache has %q", got)
	}
}

var update = flag.Bool("update", false, "write testdata/packed")

// The packed states of testdata were written with -update. They can be unpacked for as
// long as the format is the same, and the same states are packed as they are there.
func TestPackedFixtures(t *testing.T) {
	const dir = "testdata/packed"
	if *update {
		must(t, os.RemoveAll(dir))
	}
	for _, cpu := range []string{"", "Z80"} {
		inputs := []machine.Input{{Name: "machine", Value: "fixture"}}
		if cpu != "" {
			inputs = append(inputs, machine.Input{Name: machine.HostCPUInput, Value: cpu})
		}
		s := Store{Dir: t.TempDir()}
		d, err := s.draft(keyOf(inputs))
		must(t, err)
		defer d.discard()
		for _, file := range []string{d.files().RAM, d.files().Disk, d.files().Devices} {
			must(t, os.WriteFile(file, []byte(filepath.Base(file)), 0o600))
		}
		must(t, os.Truncate(d.files().RAM, 5<<20))
		must(t, d.commit(t.Context(), manifest{Inputs: inputs, Hardware: json.RawMessage(`{}`), Saved: time.Unix(1e9, 0).UTC()}))
		packed := t.TempDir()
		if *update {
			packed = dir
		}
		_, err = s.Pack(t.Context(), d.key, packed, PackOptions{HostBound: true})
		must(t, err)
		fixture := filepath.Join(dir, d.key)
		if !maps.Equal(tree(t, filepath.Join(packed, d.key)), tree(t, fixture)) {
			t.Errorf("%s is packed otherwise now; raise packing, or format, and run with -update", fixture)
		}
		if cpu == "" {
			_, err := (Store{Dir: t.TempDir()}).Unpack(t.Context(), dir, d.key)
			must(t, err)
		}
	}
}

// FuzzReadPacked reads anything as the manifest of a packed state.
func FuzzReadPacked(f *testing.F) {
	m := manifest{Inputs: []machine.Input{{Name: "machine", Value: "x"}}, Files: map[string]fileRecord{ramFile: {1, "a"}, devicesFile: {2, "b"}}, Hardware: json.RawMessage(`{}`)}
	state, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	text, err := json.Marshal(packedEnvelope{packing, state})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(bytes.Replace(text, []byte(`"packing":1`), []byte(`"packing":2`), 1))
	f.Add(text[:len(text)/2])
	f.Add([]byte(`{"packing":1,"state":{"format":1,"sha256":"","manifest":{}}}`))
	f.Add([]byte(`{"packing":1}`))
	dir := filepath.Join(f.TempDir(), keyOf(m.Inputs))
	if err := os.Mkdir(dir, 0o755); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		must(t, os.WriteFile(filepath.Join(dir, manifestFile), text, 0o644))
		m, _, err := readPacked(dir)
		if err == nil && keyOf(m.Inputs) != filepath.Base(dir) {
			t.Errorf("%+v was taken", m)
		}
	})
}
