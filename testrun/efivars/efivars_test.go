package efivars_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"vm-prebuild/testrun/efivars"
)

var update = flag.Bool("update", false, "write the golden files")

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".fd.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t *testing.T, data []byte) *efivars.Store {
	t.Helper()
	s, err := efivars.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func contents(t *testing.T, s *efivars.Store) []byte {
	t.Helper()
	data, err := s.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var sameVariable = cmpopts.IgnoreUnexported(efivars.Variable{})

func TestEmptyStoreIsThatOfOVMF(t *testing.T) {
	want := fixture(t, "OVMF_VARS_4M")
	if !bytes.Equal(contents(t, efivars.New()), want) {
		t.Error("New differs from OVMF_VARS_4M.fd")
	}
	if s := parse(t, want); len(s.Variables) != 0 || !bytes.Equal(contents(t, s), want) {
		t.Errorf("%d variables", len(s.Variables))
	}
}

func TestStoreOfAFirmware(t *testing.T) {
	s := parse(t, fixture(t, "OVMF_VARS_4M.snakeoil"))
	var list strings.Builder
	for _, v := range s.Variables {
		fmt.Fprintf(&list, "%v %s %#02x %d bytes %x\n", v.GUID, v.Name, uint32(v.Attributes), len(v.Data), sha256.Sum256(v.Data))
	}
	const golden = "testdata/snakeoil.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(list.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), list.String()); diff != "" {
		t.Error(diff)
	}
	// Written again, what was deleted is gone and the rest is as before.
	again := contents(t, s)
	if diff := cmp.Diff(s.Variables, parse(t, again).Variables, sameVariable); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(contents(t, parse(t, again)), again) {
		t.Error("not stable")
	}
	if tail := again[len(again)/2:]; !bytes.Equal(tail, contents(t, efivars.New())[len(again)/2:]) {
		t.Error("the scratch space is not empty")
	}
}

var demo = efivars.Variable{
	Name:       "Grüße",
	GUID:       guid("a19f72f8-b554-4bd7-a0c2-2762bd854691"),
	Attributes: efivars.NonVolatile | efivars.BootServiceAccess | efivars.RuntimeAccess,
	Data:       []byte{0x2a},
}

func guid(text string) efivars.GUID {
	g, err := efivars.ParseGUID(text)
	if err != nil {
		panic(err)
	}
	return g
}

func TestSet(t *testing.T) {
	s := efivars.New()
	other := demo
	other.Name, other.Data = "Other", nil
	s.Set(demo, other)
	s = parse(t, contents(t, s))
	if diff := cmp.Diff([]efivars.Variable{demo, other}, s.Variables, sameVariable, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	changed := demo
	changed.Data, changed.Attributes = []byte("changed"), efivars.NonVolatile
	s.Set(changed)
	s = parse(t, contents(t, s))
	if diff := cmp.Diff([]efivars.Variable{changed, other}, s.Variables, sameVariable, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestStatesOfVariables(t *testing.T) {
	// Offset of the state of the first and the second variable.
	const first = 0x48 + 28 + 2
	second := first + 60 + 2*len("Demo\x00") + 1 + 1 // name, data, alignment
	for _, test := range []struct {
		name  string
		state map[int]byte
		want  []string
	}{
		{"added", nil, []string{"old", "new"}},
		{"deleted", map[int]byte{first: 0x3d}, []string{"new"}},
		{"replaced and deleted", map[int]byte{first: 0x3c}, []string{"new"}},
		{"replaced, not yet deleted", map[int]byte{first: 0x3e}, []string{"new"}},
		{"the successor was not finished", map[int]byte{first: 0x3e, second: 0x7f}, []string{"old"}},
		{"the header was not finished", map[int]byte{second: 0xff}, []string{"old"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := efivars.New()
			a, b := demo, demo
			a.Name, a.Data = "Demo", []byte("o")
			b.Name, b.Data = "Demo", []byte("n")
			s.Variables = []efivars.Variable{a, b}
			data := contents(t, s)
			for at, state := range test.state {
				if data[at] != 0x3f {
					t.Fatalf("no state at %#x", at)
				}
				data[at] = state
			}
			var got []string
			for _, v := range parse(t, data).Variables {
				got = append(got, map[string]string{"o": "old", "n": "new"}[string(v.Data)])
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestBrokenStores(t *testing.T) {
	good := efivars.New()
	good.Set(demo)
	data := contents(t, good)
	for want, change := range map[string]func([]byte) []byte{
		"too few":             func(b []byte) []byte { return b[:70] },
		"not a firmware":      func(b []byte) []byte { b[40] = 'x'; return b },
		"the file only":       func(b []byte) []byte { return b[:len(b)-1] },
		"header of":           func(b []byte) []byte { b[48] = 1; return b },
		"of the kind":         func(b []byte) []byte { b[0x48] = 0; return b },
		"not healthy":         func(b []byte) []byte { b[0x48+21] = 0; return b },
		"a store of":          func(b []byte) []byte { b[0x48+19] = 1; return b },
		"more than there is":  func(b []byte) []byte { b[0x48+28+42] = 0xff; return b },
		"a name of":           func(b []byte) []byte { b[0x48+28+36] = 3; return b },
		"does not end in the": func(b []byte) []byte { b[0x48+28+36] = 4; return b },
	} {
		if _, err := efivars.Parse(change(slices.Clone(data))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for want, v := range map[string]efivars.Variable{
		"without a name": {},
		"holds a NUL":    {Name: "a\x00b"},
		"has room for":   {Name: "big", Data: make([]byte, 300<<10)},
	} {
		s := efivars.New()
		s.Set(v)
		if _, err := s.Bytes(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "machine-efi-vars.fd")
	if _, err := efivars.Read(file); !os.IsNotExist(err) {
		t.Error(err)
	}
	s := efivars.New()
	if err := efivars.Write(file, s); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	s.Set(demo)
	if err := efivars.Write(file, s); err != nil {
		t.Fatal(err)
	}
	read, err := efivars.Read(file)
	if err != nil || len(read.Variables) != 1 {
		t.Errorf("%v %v", read, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	s.Set(efivars.Variable{Name: "big", Data: make([]byte, 300<<10)})
	if err := efivars.Write(file, s); err == nil || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%v are left", entries)
	}
}

func TestGUID(t *testing.T) {
	const text = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	g := guid(text)
	if g.String() != text || g[0] != 0x61 || g[15] != 0x8c {
		t.Errorf("%v %x", g, g[:])
	}
	encoded, err := json.Marshal(demo)
	if err != nil {
		t.Fatal(err)
	}
	var v efivars.Variable
	if err := json.Unmarshal(encoded, &v); err != nil || !cmp.Equal(v, demo, sameVariable) {
		t.Errorf("%s: %v", encoded, err)
	}
	for _, bad := range []string{"", "8be4df61", "8be4df6193ca11d2aa0d00e098032b8c", "8be4df61-93ca-11d2-aa0d-00e098032b8", "8be4df61-93ca-11d2-aa0d-00e098032b8g", "8be4-df6193ca-11d2-aa0d-00e098032b8c"} {
		if _, err := efivars.ParseGUID(bad); err == nil {
			t.Errorf("%q is a GUID", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	s := efivars.New()
	s.Set(demo)
	data, err := s.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	// A small volume around the same store, for the fuzzer's sake.
	small := slices.Clone(data[:0x200])
	small[33], small[34] = 0x02, 0
	small[0x48+16], small[0x48+17], small[0x48+18] = 0x80, 1, 0
	if s, err := efivars.Parse(small); err != nil || len(s.Variables) != 1 {
		f.Fatal(s, err)
	}
	f.Add(small)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := efivars.Parse(data)
		if err != nil {
			return
		}
		again, err := s.Bytes()
		if err != nil {
			return // names that are no UTF-16 take another length
		}
		if len(again) != len(data) {
			t.Fatalf("%d bytes became %d", len(data), len(again))
		}
		second, err := efivars.Parse(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(s.Variables, second.Variables, sameVariable, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}
