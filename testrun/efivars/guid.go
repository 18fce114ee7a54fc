package efivars

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID is a globally unique identifier as UEFI stores it: the first three
// groups of its text are little endian.
type GUID [16]byte

// order is where each byte of a GUID's text is in the GUID.
var order = [16]int{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15}

// ParseGUID parses text like 8be4df61-93ca-11d2-aa0d-00e098032b8c.
func ParseGUID(text string) (GUID, error) {
	var g GUID
	groups := strings.Split(text, "-")
	raw, err := hex.DecodeString(strings.Join(groups, ""))
	if err != nil || len(raw) != len(g) || len(groups) != 5 ||
		len(groups[0]) != 8 || len(groups[1]) != 4 || len(groups[2]) != 4 || len(groups[3]) != 4 {
		return GUID{}, fmt.Errorf("%q is not a GUID\nhint: it looks like 8be4df61-93ca-11d2-aa0d-00e098032b8c", text)
	}
	for i, b := range raw {
		g[order[i]] = b
	}
	return g, nil
}

func mustGUID(text string) GUID {
	g, err := ParseGUID(text)
	if err != nil {
		panic(err)
	}
	return g
}

func (g GUID) String() string {
	var raw [16]byte
	for i := range raw {
		raw[i] = g[order[i]]
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
}

// MarshalText implements encoding.TextMarshaler.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (g *GUID) UnmarshalText(text []byte) (err error) {
	*g, err = ParseGUID(string(text))
	return err
}
