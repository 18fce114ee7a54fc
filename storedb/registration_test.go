package storedb

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nix-community/go-nix/pkg/nixbase32"
)

const (
	pathA  = "/nix/store/00000000000000000000000000000000-a"
	pathB  = "/nix/store/11111111111111111111111111111111-b"
	pathC  = "/nix/store/22222222222222222222222222222222-c.drv"
	nix32A = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
)

// record is one of a registration.
func record(path string, references ...string) string {
	return recordWith(path, nix32A, "120", "", references...)
}

func recordWith(path, hash, size, deriver string, references ...string) string {
	lines := append([]string{path, hash, size, deriver, fmt.Sprint(len(references))}, references...)
	return strings.Join(lines, "\n") + "\n"
}

func TestParseRegistration(t *testing.T) {
	// Forward references and self references are normal.
	input := record(pathA, pathA, pathB) + recordWith(pathB, nix32A, "0", pathC) + record(pathA, pathB, pathA)
	got, err := ParseRegistration(strings.NewReader(input), "r")
	if err != nil {
		t.Fatal(err)
	}
	empty := sha256.Sum256(nil)
	want := []PathInfo{
		{Path: pathA, NarHash: empty, NarSize: 120, References: []string{pathA, pathB}, line: 1},
		{Path: pathB, NarHash: empty, Deriver: pathC, line: 8},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(PathInfo{})); diff != "" {
		t.Error(diff)
	}
}

func TestParseRegistrationHashForms(t *testing.T) {
	digest := sha256.Sum256([]byte("x"))
	b64 := base64.StdEncoding.EncodeToString(digest[:])
	for _, hash := range []string{
		"sha256:" + nixbase32.EncodeToString(digest[:]), nixbase32.EncodeToString(digest[:]),
		"sha256:" + hex.EncodeToString(digest[:]), hex.EncodeToString(digest[:]),
		"sha256:" + b64, b64, "sha256-" + b64,
	} {
		infos, err := ParseRegistration(strings.NewReader(recordWith(pathA, hash, "1", "")), "r")
		if err != nil {
			t.Errorf("%s: %v", hash, err)
		} else if infos[0].NarHash != digest {
			t.Errorf("%s: parsed as %x, want %x", hash, infos[0].NarHash[:], digest)
		}
	}
}

func TestParseRegistrationErrors(t *testing.T) {
	tests := []struct {
		name, input string
		want        string // the whole message
	}{
		{"outside the store", record("/etc/passwd"), `r:1: path "/etc/passwd" is not in /nix/store`},
		{"other store", record("/gnu/store/00000000000000000000000000000000-a"), `r:1: path "/gnu/store/00000000000000000000000000000000-a" is not in /nix/store`},
		{"relative", record("nix/store/00000000000000000000000000000000-a"), `r:1: path "nix/store/00000000000000000000000000000000-a" is not in /nix/store`},
		{"dot dot", record(pathA + "/../../../etc"), fmt.Sprintf(`r:1: path %q is not a store path: it has more than one component below /nix/store`, pathA+"/../../../etc")},
		{"dot dot name", record("/nix/store/00000000000000000000000000000000-.."), `r:1: path "/nix/store/00000000000000000000000000000000-.." is not a store path: its name begins with a dot component`},
		{"short hash", record("/nix/store/0000-a"), `r:1: path "/nix/store/0000-a" is not a store path: it does not have the form HASH-NAME`},
		{"carriage return", strings.ReplaceAll(record(pathA), "\n", "\r\n"), `r:1: path "/nix/store/00000000000000000000000000000000-a\r" is not a store path: its name has the character '\r'`},
		{"hash", recordWith(pathA, "sha256:xyz", "1", ""), `r:2: narHash "sha256:xyz" is not a SHA-256 hash`},
		{"hash of 33 bytes", recordWith(pathA, "sha256:"+strings.Repeat("A", 44), "1", ""), `r:2: narHash "sha256:` + strings.Repeat("A", 44) + `" is not a SHA-256 hash`},
		{"other algorithm", recordWith(pathA, "md5:00000000000000000000000000000000", "1", ""), `r:2: narHash "md5:00000000000000000000000000000000" is not a SHA-256 hash`},
		{"no hash", pathA + "\n\n0\n", `r:2: narHash "" is not a SHA-256 hash`},
		{"negative size", recordWith(pathA, nix32A, "-1", ""), `r:3: narSize "-1" is not a decimal number`},
		{"absurd size", recordWith(pathA, nix32A, "9223372036854775808", ""), `r:3: narSize "9223372036854775808" is more than 17592186044416`},
		{"overflowing size", recordWith(pathA, nix32A, "99999999999999999999", ""), `r:3: narSize "99999999999999999999" is more than 17592186044416`},
		{"deriver", recordWith(pathA, nix32A, "1", pathB), fmt.Sprintf(`r:4: deriver %q does not end in .drv`, pathB)},
		{"absurd count", pathA + "\n" + nix32A + "\n1\n\n1000000000\n", `r:5: number of references "1000000000" is more than 1048576`},
		{"count too small", pathA + "\n" + nix32A + "\n1\n\n0\n" + pathB + "\n", `r:7: the file ends where the narHash of a path is expected`},
		{"count too large", pathA + "\n" + nix32A + "\n1\n\n2\n" + pathB + "\n", `r:7: the file ends where the reference of a path is expected`},
		{"bad reference", record(pathA, pathB, "/nix/store/x"), `r:7: reference "/nix/store/x" is not a store path: it does not have the form HASH-NAME`},
		{"cut off", strings.TrimSuffix(record(pathA, pathB), "b\n"), `r:6: the last line does not end in a newline: the file has been cut off`},
		{"no last newline", strings.TrimSuffix(record(pathA), "\n"), `r:5: the last line does not end in a newline: the file has been cut off`},
		{"empty line", "\n", `r:1: path "" is not in /nix/store`},
		{"long line", pathA + "\n" + strings.Repeat("x", 2000) + "\n", `r:2: line has more than 1024 bytes`},
		{"contradiction", record(pathA) + record(pathA, pathB), `r:6: ` + pathA + ` is registered a second time, differently from line 1`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseRegistration(strings.NewReader(test.input), "r")
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if input := new(InputError); !errors.As(err, &input) || input.ExitCode() != 2 {
				t.Errorf("%T is not an *InputError", err)
			}
		})
	}
}

func TestParseRegistrationReadError(t *testing.T) {
	broken := errors.New("broken")
	_, err := ParseRegistration(io.MultiReader(strings.NewReader(record(pathA)), iotest.ErrReader(broken)), "r")
	if input := new(InputError); !errors.Is(err, broken) || errors.As(err, &input) {
		t.Errorf("err = %v", err)
	}
}

// FuzzParseRegistration checks that whatever is accepted has the promised form
// and is read the same again when it is written out.
func FuzzParseRegistration(f *testing.F) {
	f.Add(record(pathA, pathA, pathB) + recordWith(pathB, nix32A, "0", pathC))
	f.Add(record(pathA) + record(pathA))
	f.Add(recordWith(pathA, "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "1", ""))
	f.Add("")
	f.Add("\n")
	f.Add(record("/nix/store/00000000000000000000000000000000-.."))
	f.Add(pathA + "\n" + nix32A + "\n1\n\n1000000000\n")
	f.Fuzz(func(t *testing.T, input string) {
		infos, err := ParseRegistration(strings.NewReader(input), "r")
		if err != nil {
			if in := new(InputError); !errors.As(err, &in) || in.Line < 1 || in.Line > strings.Count(input, "\n")+1 {
				t.Fatalf("%T without a line of the input: %v", err, err)
			}
			return
		}
		var again strings.Builder
		for _, info := range infos {
			for _, path := range append([]string{info.Path}, info.References...) {
				if err := CheckStorePath(path); err != nil {
					t.Error(err)
				}
			}
			again.WriteString(recordWith(info.Path, info.NarHash.String(), fmt.Sprint(info.NarSize), info.Deriver, info.References...))
		}
		infos2, err := ParseRegistration(strings.NewReader(again.String()), "r")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(infos, infos2, cmpopts.IgnoreUnexported(PathInfo{})); diff != "" {
			t.Error(diff)
		}
	})
}
