package storepath

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	const hash = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-"
	for _, name := range []string{"a", "A-b_c.d+e?f=g", ".a", "..a", "...", strings.Repeat("n", 211)} {
		if err := Check(hash + name); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{
		"", "/", "/nix/store", "/nix/store/", hash, hash + ".", hash + "..", hash + ".-a", hash + "..-a",
		hash + "a/b", hash + "a/", hash + "a b", hash + "ä", hash + "a\x00", hash + strings.Repeat("n", 212),
		"/nix/store/e123456789abcdfghijklmnpqrsvwxyz-a", "/nix/store/0123456789ABCDFGHIJKLMNPQRSVWXYZ-a",
		"/nix/store/0123456789abcdfghijklmnpqrsvwxyz_a", "/nix/storeX0123456789abcdfghijklmnpqrsvwxyz-a",
		"/nix/store/.links",
	} {
		if err := Check(path); err == nil {
			t.Errorf("%q is accepted", path)
		}
	}
}
