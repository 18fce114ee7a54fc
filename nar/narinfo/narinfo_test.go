package narinfo

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/nix-community/go-nix/pkg/narinfo/signature"
)

// A key made by nix-store --generate-binary-cache-key, for these tests only.
const (
	testSecretKey = "test-1:Ka/T5MFDFce9zN8JWEmUXD5ia1quqvxe9Y2QE1+V4NLu4xLwghXKHiufoh9cuiNT4Qk/cSxTqDVPGE7zNFZlFg=="
	testPublicKey = "test-1:7uMS8IIVyh4rn6IfXLojU+EJP3EsU6g1TxhO8zRWZRY="
)

const (
	hashA   = "00000000000000000000000000000000"
	hashB   = "11111111111111111111111111111111"
	narHash = "sha256:0dxaqjdm2vljykvj7za0fzsdsf334w621z0af54f6kddrdxx86x6"
)

// good has every key that there is.
const good = `StorePath: /nix/store/` + hashA + `-a
URL: nar/0dxaqjdm2vljykvj7za0fzsdsf334w621z0af54f6kddrdxx86x6.nar.zst
Compression: zstd
FileHash: ` + narHash + `
FileSize: 1000
NarHash: ` + narHash + `
NarSize: 1232
References: ` + hashA + `-a ` + hashB + `-b
Deriver: ` + hashB + `-a.drv
Sig: key-1:c2lnbmF0dXJl
Sig: key-2:c2lnbmF0dXJl
CA: fixed:r:` + narHash + `
`

func parse(t *testing.T, text string) *NarInfo {
	t.Helper()
	n, err := Parse(strings.NewReader(text), "test.narinfo")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParse(t *testing.T) {
	n := parse(t, good)
	want := &NarInfo{
		StorePath:   "/nix/store/" + hashA + "-a",
		URL:         "nar/0dxaqjdm2vljykvj7za0fzsdsf334w621z0af54f6kddrdxx86x6.nar.zst",
		Compression: "zstd",
		FileHash:    &n.NarHash,
		FileSize:    1000,
		NarHash:     n.NarHash,
		NarSize:     1232,
		References:  []string{"/nix/store/" + hashA + "-a", "/nix/store/" + hashB + "-b"},
		Deriver:     "/nix/store/" + hashB + "-a.drv",
		Sigs:        []string{"key-1:c2lnbmF0dXJl", "key-2:c2lnbmF0dXJl"},
		CA:          "fixed:r:" + narHash,
	}
	if diff := gocmp.Diff(want, n); diff != "" {
		t.Error(diff)
	}
	if n.NarHash.String() != narHash {
		t.Errorf("NarHash is %s, want %s", n.NarHash, narHash)
	}
	if n.HashPart() != hashA {
		t.Errorf("HashPart is %s, want %s", n.HashPart(), hashA)
	}
	if n.String() != good {
		t.Errorf("String() =\n%s\nwant\n%s", n, good)
	}
	wantPrint := "1;/nix/store/" + hashA + "-a;" + narHash + ";1232;/nix/store/" + hashA + "-a,/nix/store/" + hashB + "-b"
	if n.Fingerprint() != wantPrint {
		t.Errorf("Fingerprint() =\n%s\nwant\n%s", n.Fingerprint(), wantPrint)
	}
}

// edit replaces the line of good with the given key by line, which may be
// several or none.
func edit(key, line string) string {
	var b strings.Builder
	for l := range strings.Lines(good) {
		if strings.HasPrefix(l, key+": ") {
			b.WriteString(line)
			line = ""
		} else {
			b.WriteString(l)
		}
	}
	return b.String()
}

func TestParseTakes(t *testing.T) {
	tests := []struct {
		name, text string
		change     func(n *NarInfo) // of what good is
	}{
		{"unknown keys", good + "System: x86_64-linux\nNew key: ü: x\nSystem: twice\n", func(*NarInfo) {}},
		{"no compression", edit("Compression", ""), func(n *NarInfo) { n.Compression = "bzip2" }},
		{"empty compression", edit("Compression", "Compression: \n"), func(n *NarInfo) { n.Compression = "bzip2" }},
		{"no hash of the file", edit("FileHash", ""), func(n *NarInfo) { n.FileHash = nil }},
		{"no size of the file", edit("FileSize", ""), func(n *NarInfo) { n.FileSize = 0 }},
		{"hash in base16", edit("NarHash", "NarHash: sha256:a69b8ddab61666c3512a7d0f2e8330ee09fd3c1f1f61ea8d7d49ad367a526937\n"), func(n *NarInfo) {
			n.NarHash = Hash{0xa6, 0x9b, 0x8d, 0xda, 0xb6, 0x16, 0x66, 0xc3, 0x51, 0x2a, 0x7d, 0x0f, 0x2e, 0x83, 0x30, 0xee,
				0x09, 0xfd, 0x3c, 0x1f, 0x1f, 0x61, 0xea, 0x8d, 0x7d, 0x49, 0xad, 0x36, 0x7a, 0x52, 0x69, 0x37}
		}},
		{"hash as in SRI", edit("NarHash", "NarHash: sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"), func(n *NarInfo) { n.NarHash = Hash{} }},
		{"no references", edit("References", "References: \n"), func(n *NarInfo) { n.References = nil }},
		{"references not sorted", edit("References", "References: "+hashB+"-b "+hashA+"-a "+hashB+"-b\n"), func(*NarInfo) {}},
		{"no deriver", edit("Deriver", ""), func(n *NarInfo) { n.Deriver = "" }},
		{"unknown deriver", edit("Deriver", "Deriver: unknown-deriver\n"), func(n *NarInfo) { n.Deriver = "" }},
		{"no signatures", edit("Sig", ""), func(n *NarInfo) { n.Sigs = nil }},
		{"signatures not sorted", edit("Sig", "Sig: b:x\nSig: a:x\nSig: b:x\n"), func(n *NarInfo) { n.Sigs = []string{"a:x", "b:x"} }},
		{"no content address", edit("CA", ""), func(n *NarInfo) { n.CA = "" }},
		{"URL with a query", edit("URL", "URL: nar/x.nar?hash=../y\n"), func(n *NarInfo) { n.URL = "nar/x.nar?hash=../y" }},
		{"URL with dots", edit("URL", "URL: a..b/...\n"), func(n *NarInfo) { n.URL = "a..b/..." }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := parse(t, good)
			test.change(want)
			got := parse(t, test.text)
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if diff := gocmp.Diff(got, parse(t, got.String())); diff != "" {
				t.Errorf("written and read again:\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"nothing", "", "test.narinfo: has no StorePath"},
		{"no store path", edit("StorePath", ""), "test.narinfo: has no StorePath"},
		{"no URL", edit("URL", ""), "has no URL"},
		{"no hash", edit("NarHash", ""), "has no NarHash"},
		{"no size", edit("NarSize", ""), "has no NarSize"},
		{"no line of references", edit("References", ""), "has no References"},
		{"last line cut off", strings.TrimSuffix(good, "\n"), "test.narinfo:12: the last line does not end in a newline"},
		{"empty line", good + "\n", `test.narinfo:13: "" is not of the form`},
		{"line without a key", good + "x\n", `"x" is not of the form`},
		{"line without a space", edit("References", "References:\n"), `test.narinfo:8: "References:" is not of the form`},
		{"huge", good + "X: " + strings.Repeat("x", maxSize) + "\n", "has more than 5242880 bytes"},

		{"store path twice", good + "StorePath: /nix/store/" + hashA + "-a\n", "test.narinfo:13: a second StorePath"},
		{"size twice", good + "NarSize: 1232\n", "a second NarSize"},
		{"hash twice", good + "NarHash: " + narHash + "\n", "a second NarHash"},
		{"references twice", good + "References: \n", "a second References"},
		{"content address twice", good + "CA: x\n", "a second CA"},

		{"store path elsewhere", edit("StorePath", "StorePath: /gnu/store/"+hashA+"-a\n"), "test.narinfo:1: StorePath \"/gnu/store/" + hashA + "-a\" is not in /nix/store"},
		{"store path with ..", edit("StorePath", "StorePath: /nix/store/../"+hashA+"-a\n"), "test.narinfo:1: StorePath"},
		{"store path of a base name", edit("StorePath", "StorePath: "+hashA+"-a\n"), "is not in /nix/store"},
		{"store path empty", edit("StorePath", "StorePath: \n"), "is not in /nix/store"},
		{"store path in CRLF", edit("StorePath", "StorePath: /nix/store/"+hashA+"-a\r\n"), `has the character '\r'`},

		{"URL empty", edit("URL", "URL: \n"), `test.narinfo:2: URL "" is not one`},
		{"URL absolute", edit("URL", "URL: /etc/shadow\n"), "is not relative to the cache"},
		{"URL elsewhere", edit("URL", "URL: https://example.org/x.nar\n"), "is not relative to the cache"},
		{"URL out of the cache", edit("URL", "URL: nar/../../x\n"), "leads out of the cache"},
		{"URL out of the cache at once", edit("URL", "URL: ..\n"), "leads out of the cache"},
		{"URL with a space", edit("URL", "URL: nar/a b\n"), "is not one"},
		{"URL with a control character", edit("URL", "URL: nar/\x1b[2J\n"), `has the character '\x1b'`},

		{"hash of another kind", edit("NarHash", "NarHash: sha1:kpcd173cq987hw957sx6m0868wv3x6d9\n"), "test.narinfo:6: NarHash \"sha1:kpcd173cq987hw957sx6m0868wv3x6d9\" is not a SHA-256 hash"},
		{"hash without a kind", edit("NarHash", "NarHash: "+narHash[7:]+"\n"), "is not a SHA-256 hash"},
		{"hash too short", edit("NarHash", "NarHash: "+narHash[:50]+"\n"), "is not a SHA-256 hash"},
		{"hash of the file", edit("FileHash", "FileHash: \n"), "test.narinfo:4: FileHash"},
		{"size 0", edit("NarSize", "NarSize: 0\n"), "test.narinfo:7: NarSize 0 is less than 1"},
		{"size negative", edit("NarSize", "NarSize: -1\n"), `"-1" is not a decimal number`},
		{"size in hexadecimal", edit("NarSize", "NarSize: 0x10\n"), "is not a decimal number"},
		{"size too large", edit("NarSize", "NarSize: 9223372036854775808\n"), "9223372036854775808 is more than 9223372036854775807"},
		{"size much too large", edit("NarSize", "NarSize: 99999999999999999999999\n"), "is more than"},
		{"size of the file", edit("FileSize", "FileSize: x\n"), "test.narinfo:5: FileSize"},

		{"reference by its path", edit("References", "References: /nix/store/"+hashB+"-b\n"), "test.narinfo:8: References"},
		{"reference with ..", edit("References", "References: "+hashB+"-b ..\n"), "is not a store path"},
		{"deriver empty", edit("Deriver", "Deriver: \n"), "test.narinfo:9: Deriver"},
		{"deriver that is none", edit("Deriver", "Deriver: "+hashB+"-a\n"), "does not end in .drv"},
		{"deriver in a directory", edit("Deriver", "Deriver: x/"+hashB+"-a.drv\n"), "is not a store path"},
		{"signature empty", edit("Sig", "Sig: \n"), "test.narinfo:10: Sig"},
		{"signature without a name", edit("Sig", "Sig: c2ln\n"), "is not of the form NAME:SIGNATURE"},
		{"signature with a space", edit("Sig", "Sig: a:b c:d\n"), "is not of the form NAME:SIGNATURE"},
		{"content address with a space", edit("CA", "CA: a b\n"), "test.narinfo:12: CA"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse(strings.NewReader(test.text), "test.narinfo")
			var format *FormatError
			if !errors.As(err, &format) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("err = %v, want a FormatError with %q", err, test.want)
			}
		})
	}
}

func TestParseReportsReadError(t *testing.T) {
	broken := errors.New("connection reset")
	_, err := Parse(iotest.ErrReader(broken), "test.narinfo")
	if format := new(FormatError); !errors.Is(err, broken) || errors.As(err, &format) {
		t.Errorf("err = %v, want %v", err, broken)
	}
}

// Whatever is accepted is the same after it has been written and read again.
func FuzzParse(f *testing.F) {
	f.Add(good)
	f.Add(edit("References", "References: \n"))
	f.Add(edit("NarHash", "NarHash: sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
	f.Add(edit("Compression", "") + "Unknown: key\n")
	f.Add("StorePath: /nix/store/..\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := Parse(strings.NewReader(text), "f")
		if err != nil {
			if format := new(FormatError); !errors.As(err, &format) || format.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("%T without a line of the input: %v", err, err)
			}
			return
		}
		again, err := Parse(strings.NewReader(n.String()), "f")
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(n, again); diff != "" {
			t.Error(diff)
		}
		if n.Fingerprint() != again.Fingerprint() {
			t.Errorf("fingerprints %q and %q", n.Fingerprint(), again.Fingerprint())
		}
	})
}

func keys(t *testing.T) (signature.SecretKey, signature.PublicKey) {
	t.Helper()
	secret, err := signature.LoadSecretKey(testSecretKey)
	if err != nil {
		t.Fatal(err)
	}
	public, err := signature.ParsePublicKey(testPublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return secret, public
}

func TestVerify(t *testing.T) {
	secret, public := keys(t)
	n := parse(t, edit("Sig", ""))
	checkVerify := func(t *testing.T, n *NarInfo, want string, keys ...signature.PublicKey) {
		t.Helper()
		err := n.Verify(keys...)
		if want == "" {
			if err != nil {
				t.Error(err)
			}
			return
		}
		if e := new(SignatureError); !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("err = %v, want a SignatureError with %q", err, want)
		}
	}
	checkVerify(t, n, "has no signature", public)
	for range 2 { // the second time it is there already
		if err := n.Sign(secret); err != nil {
			t.Fatal(err)
		}
	}
	if len(n.Sigs) != 1 {
		t.Fatalf("Sigs = %q, want one", n.Sigs)
	}
	other := signature.PublicKey{Name: "other", Data: public.Data}
	namesake := signature.PublicKey{Name: public.Name, Data: make([]byte, len(public.Data))}
	checkVerify(t, n, "", public)
	checkVerify(t, n, "", other, namesake, public)
	checkVerify(t, n, "is signed by "+public.Name+", which is not trusted")
	checkVerify(t, n, "is signed by "+public.Name+", which is not trusted", other)
	checkVerify(t, n, "by the key "+public.Name+" is wrong", namesake)

	// A second signature that is of no use does no harm.
	n.Sigs = append([]string{"a:not base64", public.Name + ":c2hvcnQ="}, n.Sigs...)
	checkVerify(t, n, "", public)

	// The signature covers what is to be believed, and only that.
	for name, change := range map[string]func(n *NarInfo){
		"store path": func(n *NarInfo) { n.StorePath = "/nix/store/" + hashB + "-a" },
		"hash":       func(n *NarInfo) { n.NarHash[0]++ },
		"size":       func(n *NarInfo) { n.NarSize++ },
		"references": func(n *NarInfo) { n.References = n.References[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			lie := *n
			change(&lie)
			checkVerify(t, &lie, "is wrong", public)
		})
	}
	n.URL, n.Compression, n.FileHash, n.FileSize = "x", "none", nil, 0
	checkVerify(t, n, "", public)
}

func TestSignWithDamagedKey(t *testing.T) {
	// The last bytes of the secret key are the public key.
	secret, err := signature.LoadSecretKey(testSecretKey[:len(testSecretKey)-8] + "AAAAAA==")
	if err != nil {
		t.Fatal(err)
	}
	n := parse(t, good)
	if err := n.Sign(secret); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("err = %v", err)
	}
}

// Nix writes what String writes and signs as Sign does, and takes what we have
// written and signed.
func TestNix(t *testing.T) {
	newer := cmp.Or(os.Getenv("VM_PREBUILD_TRIXIE"), "/var/cache/vm-prebuild/trixie") // see nix/offline/trixie.sh
	for name, program := range map[string]string{"system": "nix", "newer": newer + "/bin/nix"} {
		t.Run(name, func(t *testing.T) {
			program, err := exec.LookPath(program)
			if err != nil {
				if os.Getenv("CI") != "" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			testNix(t, program)
		})
	}
}

func testNix(t *testing.T, program string) {
	t.Setenv("NIX_CONFIG", "experimental-features = nix-command\nbuild-users-group =\nsubstituters =")
	t.Setenv("HOME", t.TempDir())
	secret, public := keys(t)
	tmp := t.TempDir()
	t.Cleanup(func() { _ = exec.Command("chmod", "-R", "u+w", tmp).Run() })
	nix := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(program, args...).Output()
		if err != nil {
			if exit := new(exec.ExitError); errors.As(err, &exit) {
				t.Fatalf("nix %q: %v\n%s", args, err, exit.Stderr)
			}
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	write := func(file, text string) string {
		t.Helper()
		file = filepath.Join(tmp, file)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	store, cache := filepath.Join(tmp, "store"), filepath.Join(tmp, "cache")
	path := nix("store", "add-path", "--store", store, "--name", "test", write("file", "contents"))
	nix("copy", "--store", store, "--to", fmt.Sprintf("file://%s?compression=xz&secret-key=%s", cache, write("key", testSecretKey)), path)

	hashPart := path[len("/nix/store/"):][:32]
	file := filepath.Join(cache, hashPart+".narinfo")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := parse(t, string(data))
	if n.String() != string(data) {
		t.Errorf("String() =\n%s\nwant\n%s", n, data)
	}
	if err := n.Verify(public); err != nil {
		t.Error(err)
	}
	// It is not Nix's check of the content address that is to succeed.
	n.CA, n.Sigs = "", nil
	if err := os.WriteFile(file, []byte(n.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	from := func(root string) *exec.Cmd {
		return exec.Command(program, "copy", "--from", "file://"+cache, "--store", filepath.Join(tmp, root), "--option", "trusted-public-keys", testPublicKey, path)
	}
	if out, err := from("unsigned").CombinedOutput(); err == nil {
		t.Errorf("Nix takes it without a signature: %s", out)
	}
	if err := n.Sign(secret); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(n.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := from("signed").CombinedOutput(); err != nil {
		t.Errorf("Nix does not take it: %v\n%s", err, out)
	}
}
