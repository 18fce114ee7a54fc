package machine

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// PythonString prints s as Python's repr does: nixpkgs' driver shows texts
// like that, and people grep for them.
func PythonString(s string) string {
	quote := '\''
	if strings.ContainsRune(s, '\'') && !strings.ContainsRune(s, '"') {
		quote = '"'
	}
	var b strings.Builder
	b.WriteRune(quote)
	for _, r := range s {
		switch {
		case r == quote || r == '\\':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteRune(quote)
	return b.String()
}

// pythonList prints a list of strings as Python does.
func pythonList(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = PythonString(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// Text is what a guest wrote, as Python decodes it with errors="replace": each
// part of the longest possible invalid sequence becomes one U+FFFD (Unicode
// standard, section 3.9, "substitution of maximal subparts").
func Text(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n <= 1 {
			n = subpart(b)
			s.WriteRune(utf8.RuneError)
		} else {
			s.Write(b[:n])
		}
		b = b[n:]
	}
	return s.String()
}

// subpart is the length of the invalid sequence that b begins with.
func subpart(b []byte) int {
	low, high, most := byte(0x80), byte(0xbf), 1
	switch lead := b[0]; {
	case lead >= 0xe0 && lead <= 0xef:
		most = 2
	case lead >= 0xf0 && lead <= 0xf4:
		most = 3
	}
	switch b[0] {
	case 0xe0:
		low = 0xa0
	case 0xed:
		high = 0x9f
	case 0xf0:
		low = 0x90
	case 0xf4:
		high = 0x8f
	}
	n := 1
	for n < most && n < len(b) && b[n] >= low && b[n] <= high {
		low, high = 0x80, 0xbf
		n++
	}
	return n
}
