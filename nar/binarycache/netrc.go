package binarycache

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxNetrc is more than any netrc file has.
const maxNetrc = 1 << 20

// netrc has the credentials of a netrc file by host; those of "default" have
// the host "".
type netrc map[string]credentials

type credentials struct{ login, password string }

// readNetrc reads a file in the format of ftp(1) and curl. With optional, that
// there is no such file is no error.
func readNetrc(file string, optional bool) (netrc, error) {
	f, err := os.Open(file)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read netrc: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxNetrc+1))
	if err != nil {
		return nil, fmt.Errorf("read netrc: %w", err)
	}
	if len(text) > maxNetrc {
		return nil, fmt.Errorf("%s: has more than %d bytes", file, maxNetrc)
	}
	n, err := parseNetrc(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s:%w", file, err)
	}
	return n, nil
}

// parseNetrc reads a netrc file. Of several entries for a host, the first
// counts, and nothing counts that comes after "default". Its errors begin with a
// line number, and never show what the file says: it holds passwords.
func parseNetrc(text string) (netrc, error) {
	n := netrc{}
	var host string
	var entry *credentials // nil before the first
	end := func() {
		if _, ok := n[host]; entry != nil && !ok {
			n[host] = *entry
		}
	}
	tokens := netrcTokens{rest: text, line: 1}
	for {
		token, err := tokens.next()
		if err != nil {
			return nil, err
		}
		switch token {
		case "":
			end()
			return n, nil
		case "machine", "default":
			end()
			if _, ok := n[""]; ok {
				return nil, fmt.Errorf("%d: an entry after default, which is to be the last", tokens.line)
			}
			host, entry = "", &credentials{}
			if token == "machine" {
				if host, err = tokens.value(token); err != nil {
					return nil, err
				}
				host = strings.ToLower(host)
			}
		case "login", "password", "account":
			if entry == nil {
				return nil, fmt.Errorf("%d: %s before any machine", tokens.line, token)
			}
			value, err := tokens.value(token)
			if err != nil {
				return nil, err
			}
			switch token {
			case "login":
				entry.login = value
			case "password":
				entry.password = value
			}
		case "macdef":
			tokens.skipMacro()
		default:
			return nil, fmt.Errorf("%d: expected machine, default, login, password, account or macdef", tokens.line)
		}
	}
}

// lookup returns the credentials for a host.
func (n netrc) lookup(host string) (credentials, bool) {
	c, ok := n[strings.ToLower(host)]
	if !ok {
		c, ok = n[""]
	}
	return c, ok
}

// netrcTokens splits a file into words, which may be quoted as curl has it.
type netrcTokens struct {
	rest string
	line int
}

// next returns the next word; it is empty at the end of the file.
func (t *netrcTokens) next() (string, error) {
	for {
		blank := len(t.rest) - len(strings.TrimLeft(t.rest, " \t\r\n"))
		t.line += strings.Count(t.rest[:blank], "\n")
		t.rest = t.rest[blank:]
		if !strings.HasPrefix(t.rest, "#") {
			break
		}
		t.skipLine()
	}
	return t.word()
}

func (t *netrcTokens) word() (string, error) {
	if strings.HasPrefix(t.rest, `"`) {
		return t.quoted()
	}
	word := t.rest
	if i := strings.IndexAny(word, " \t\r\n"); i >= 0 {
		word = word[:i]
	}
	t.rest = t.rest[len(word):]
	return word, nil
}

// value returns the word after a keyword, on its line. It may begin with a hash.
func (t *netrcTokens) value(keyword string) (string, error) {
	t.rest = strings.TrimLeft(t.rest, " \t")
	if t.rest == "" || strings.ContainsAny(t.rest[:1], "\r\n") {
		return "", fmt.Errorf("%d: nothing after %s", t.line, keyword)
	}
	return t.word()
}

func (t *netrcTokens) quoted() (string, error) {
	var word strings.Builder
	for i := 1; i < len(t.rest); i++ {
		switch c := t.rest[i]; c {
		case '"':
			t.rest = t.rest[i+1:]
			return word.String(), nil
		case '\n':
			return "", fmt.Errorf("%d: a quote that does not end", t.line)
		case '\\':
			if i++; i < len(t.rest) {
				switch c := t.rest[i]; c {
				case 'n':
					word.WriteByte('\n')
				case 'r':
					word.WriteByte('\r')
				case 't':
					word.WriteByte('\t')
				default:
					word.WriteByte(c)
				}
			}
		default:
			word.WriteByte(c)
		}
	}
	return "", fmt.Errorf("%d: a quote that does not end", t.line)
}

func (t *netrcTokens) skipLine() {
	i := strings.IndexByte(t.rest, '\n')
	if i < 0 {
		i = len(t.rest)
	}
	t.rest = t.rest[i:]
}

// skipMacro skips a macro, which ends at an empty line.
func (t *netrcTokens) skipMacro() {
	i := strings.Index(t.rest, "\n\n")
	if i < 0 {
		i = len(t.rest)
	}
	t.line += strings.Count(t.rest[:i], "\n")
	t.rest = t.rest[i:]
}
