package narinfo

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"
)

// Fingerprint is what signatures sign. It covers neither URL nor compression,
// so that caches may compress anew what others have signed.
func (n *NarInfo) Fingerprint() string {
	references := slices.Clone(n.References)
	slices.Sort(references)
	return fmt.Sprintf("1;%s;%s;%d;%s", n.StorePath, n.NarHash, n.NarSize, strings.Join(references, ","))
}

// Sign adds a signature by key.
func (n *NarInfo) Sign(key signature.SecretKey) error {
	fingerprint := n.Fingerprint()
	sig, err := key.Sign(nil, fingerprint)
	if err != nil {
		return fmt.Errorf("sign %s: %w", n.StorePath, err)
	}
	// A secret key holds its public key, and may hold a wrong one.
	if public := key.ToPublicKey(); !public.Verify(fingerprint, sig) {
		return fmt.Errorf("sign %s: the key %q is damaged: it does not verify what it signs", n.StorePath, public.Name)
	}
	n.Sigs = append(n.Sigs, sig.String())
	slices.Sort(n.Sigs)
	n.Sigs = slices.Compact(n.Sigs)
	return nil
}

// SignatureError says that a narinfo has no signature by any trusted key.
type SignatureError struct {
	StorePath string
	Wrong     []string // names of trusted keys that it pretends to be signed by
	Others    []string // names of other keys
}

func (e *SignatureError) Error() string {
	switch {
	case len(e.Wrong) > 0:
		return fmt.Sprintf("the signature of %s by the key %s is wrong", e.StorePath, strings.Join(e.Wrong, ", "))
	case len(e.Others) > 0:
		return fmt.Sprintf("%s is signed by %s, which is not trusted", e.StorePath, strings.Join(e.Others, ", "))
	}
	return fmt.Sprintf("%s has no signature", e.StorePath)
}

// ExitCode is that of a failed check.
func (e *SignatureError) ExitCode() int { return 1 }

// Verify returns nil if one of the keys has signed n, and a *SignatureError
// otherwise. With no keys, nothing is trusted.
func (n *NarInfo) Verify(keys ...signature.PublicKey) error {
	fingerprint := n.Fingerprint()
	e := &SignatureError{StorePath: n.StorePath}
	for _, s := range n.Sigs {
		name, _, _ := strings.Cut(s, ":")
		sig, err := signature.ParseSignature(s)
		known := false
		for _, key := range keys {
			if key.Name != name {
				continue
			}
			known = true
			if err == nil && key.Verify(fingerprint, sig) {
				return nil
			}
		}
		if known {
			e.Wrong = append(e.Wrong, name)
		} else {
			e.Others = append(e.Others, name)
		}
	}
	return e
}
