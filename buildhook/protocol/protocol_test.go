package protocol

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recorded is what real Nix has sent, see nix/offline/fixtures.sh.
func recorded(t testing.TB, version string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "nix-"+version, "hook"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// read reads a conversation in which the derivations named accept are.
func read(data []byte) (s Settings, tries []Try, jobs []Job, err error) {
	r := NewReader(bytes.NewReader(data))
	if s, err = r.Settings(); err != nil {
		return s, tries, jobs, err
	}
	for {
		try, err := r.Try()
		if errors.Is(err, io.EOF) {
			return s, tries, jobs, nil
		}
		if err != nil {
			return s, tries, jobs, err
		}
		tries = append(tries, try)
		if strings.Contains(try.Drv, "accept") {
			job, err := r.Job()
			if err != nil {
				return s, tries, jobs, err
			}
			jobs = append(jobs, job)
		}
	}
}

func write1(t testing.TB, s Settings, tries []Try, jobs []Job) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := s.Write(&out); err != nil {
		t.Fatal(err)
	}
	for _, try := range tries {
		if err := try.Write(&out); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(try.Drv, "accept") {
			if err := jobs[0].Write(&out); err != nil {
				t.Fatal(err)
			}
			jobs = jobs[1:]
		}
	}
	return out.Bytes()
}

// TestRecorded reads what Nix has sent, and writes it again: a delegate gets the
// same bytes.
func TestRecorded(t *testing.T) {
	for _, version := range []string{"2.8", "2.26"} {
		t.Run(version, func(t *testing.T) {
			data := recorded(t, version)
			s, tries, jobs, err := read(data)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{
				"max-silent-time": "77", "timeout": "99", "sandbox": "true",
				"system-features": "benchmark", "builders": "", "system": "x86_64-linux",
			} {
				if got := s[name]; got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			type question struct {
				name     string
				features []string
			}
			var got []question
			for _, try := range tries {
				if try.System != "x86_64-linux" || !try.Willing {
					t.Errorf("%+v", try)
				}
				got = append(got, question{try.Drv[len("/nix/store/")+33:], try.Features})
			}
			want := []question{{"plain.drv", nil}, {"vm-accept.drv", []string{"kvm", "nixos-test"}}}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(question{})); diff != "" {
				t.Error(diff)
			}
			if len(jobs) != 1 || len(jobs[0].Inputs) != 1 || !strings.HasSuffix(jobs[0].Inputs[0], "-plain") {
				t.Fatalf("jobs: %+v", jobs)
			}
			if diff := cmp.Diff([]string{"out"}, jobs[0].Outputs); diff != "" {
				t.Error(diff)
			}
			if !bytes.Equal(write1(t, s, tries, jobs), data) {
				t.Error("written again, it differs")
			}
		})
	}
}

// TestCutOff cuts a conversation off everywhere: between questions that is its
// end, elsewhere an error.
func TestCutOff(t *testing.T) {
	data := recorded(t, "2.8")
	s, tries, _, err := read(data)
	if err != nil {
		t.Fatal(err)
	}
	whole := map[int]bool{len(write1(t, s, nil, nil)): true, len(write1(t, s, tries[:1], nil)): true, len(data): true}
	for n := range len(data) + 1 {
		_, _, _, err := read(data[:n])
		if whole[n] != (err == nil) {
			t.Fatalf("cut off after %d bytes: %v", n, err)
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut off after %d bytes: %v", n, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	try := Try{System: "x86_64-linux", Drv: "/nix/store/00000000000000000000000000000000-x.drv"}
	for name, tt := range map[string]struct {
		change func(*Try)
		want   string
	}{
		"path":    {func(t *Try) { t.Drv = "passwd.drv" }, "is not an absolute path"},
		"dots":    {func(t *Try) { t.Drv = "/nix/store/../../etc/x.drv" }, "is not an absolute path"},
		"a line":  {func(t *Try) { t.Drv = "/nix/store/a\nb.drv" }, "is not a name"},
		"no drv":  {func(t *Try) { t.Drv = t.Drv[:len(t.Drv)-4] }, "does not end in .drv"},
		"system":  {func(t *Try) { t.System = "" }, "is not a name"},
		"feature": {func(t *Try) { t.Features = []string{"a\nb"} }, "is not a name"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := try
			tt.change(&bad)
			var buf bytes.Buffer
			if err := bad.Write(&buf); err != nil {
				t.Fatal(err)
			}
			_, err := NewReader(&buf).Try()
			if e := new(Error); !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// FuzzReader: whatever comes is read as what Nix would have written, byte for
// byte, or refused.
func FuzzReader(f *testing.F) {
	f.Add(recorded(f, "2.8"))
	f.Add(recorded(f, "2.26"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, tries, jobs, err := read(data)
		if err != nil {
			if e := new(Error); !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		again, tries2, jobs2, err := read(write1(t, s, tries, jobs))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]any{s, tries, jobs}, []any{again, tries2, jobs2}); diff != "" {
			t.Fatal(diff)
		}
	})
}
