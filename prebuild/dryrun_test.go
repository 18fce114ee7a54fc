package prebuild

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// unexported lets cmp look into missing.
var unexported = cmp.AllowUnexported(missing{})

func TestParseDryRun(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       missing
		err        string
	}{
		{name: "nothing"},
		{
			name: "Nix 2.8, cache unreachable",
			text: `warning: error: unable to download 'https://cache.example.org/nix-cache-info': Couldn't resolve host name (6); retrying in 290 ms
these 2 derivations will be built:
  /nix/store/p2qkh6lklg7zljx468xsl3gwif574nq4-dep.drv
  /nix/store/l9db7x6r1xj3fnjif4damifc0n1k3v44-driver-a.drv
this path will be fetched (0.50 MiB download, 2.00 MiB unpacked):
  /nix/store/6h9lcbx523532ax1c5g2351w9bm8ykhy-f.txt
`,
			want: missing{
				build:         []string{"/nix/store/p2qkh6lklg7zljx468xsl3gwif574nq4-dep.drv", "/nix/store/l9db7x6r1xj3fnjif4damifc0n1k3v44-driver-a.drv"},
				fetch:         []string{"/nix/store/6h9lcbx523532ax1c5g2351w9bm8ykhy-f.txt"},
				downloadBytes: 512 << 10, unpackedBytes: 2 << 20,
			},
		},
		{
			name: "units",
			text: "this derivation will be built:\n  /nix/store/a.drv\nthese 2 paths will be fetched (1.5 KiB download, 2.0 GiB unpacked):\n  /nix/store/b\n  /nix/store/c\nwarning: x\n  /not/one\n",
			want: missing{
				build: []string{"/nix/store/a.drv"}, fetch: []string{"/nix/store/b", "/nix/store/c"},
				downloadBytes: 1536, unpackedBytes: 2 << 30,
			},
		},
		{
			name: "unknown",
			text: "don't know how to build these paths:\n  /nix/store/a\n  /nix/store/b\n",
			err:  "nix does not know how to build /nix/store/a, /nix/store/b",
		},
		{name: "size", text: "this path will be fetched (x.1 MiB download, 2 MiB unpacked):\n", want: missing{}},
		{name: "unit", text: "this path will be fetched (1.1 XiB download, 2 MiB unpacked):\n", err: `"1.1 XiB" is no size`},
		{name: "dots", text: "this path will be fetched (1.1.1 MiB download, 2 MiB unpacked):\n", err: `"1.1.1 MiB" is no size`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseDryRun([]byte(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got, unexported); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

func FuzzDryRun(f *testing.F) {
	f.Add([]byte("these 2 derivations will be built:\n  /nix/store/a.drv\nthis path will be fetched (0.5 MiB download, 2.0 GiB unpacked):\n  /nix/store/b\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseDryRun(text)
		if err != nil {
			return
		}
		if m.downloadBytes < 0 || m.unpackedBytes < 0 {
			t.Errorf("negative sizes: %+v", m)
		}
		for _, path := range append(m.build, m.fetch...) {
			if !strings.HasPrefix(path, "/") {
				t.Errorf("path %q", path)
			}
		}
	})
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"nix (Nix) 2.8.0\n":                         {2, 8},
		"nix (Nix) 2.26.3":                          {2, 26},
		"nix (Nix) 2.34.0pre20260101_abcdef":        {2, 34},
		"nix (Lix, like Nix) 2.93.0":                {2, 93},
		"nix (Determinate Nix 3.8.0) 2.30.1":        {2, 30},
		"nix (Determinate Nix 3.8.0) 3.0.1\nmore\n": {0, 0},
		"": {0, 0},
	} {
		got, err := parseVersion(text)
		if got != want || (err == nil) != (want != Version{}) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestNixErrorMessage(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "exit status 1",
		"warning: x\nerror: y": "y",
		"error:\n       … while evaluating\n       error: attribute 'x' missing\n       at /f": "attribute 'x' missing",
	} {
		if got := nixError("nix eval", text, errors.New("exit status 1")).Error(); got != "nix eval: "+want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
