// Package derivation reads derivations. [Parse] is its entry point.
//
// The form is that of Nix's src/libstore/derivations.cc: a term Derive of lists,
// tuples and strings, without white space. (The parser of go-nix, which would
// otherwise do, leaves the arguments of builders as they are escaped.)
package derivation

import (
	"errors"
	"fmt"
	"strings"
)

// Derivation is what is built, and how.
type Derivation struct {
	Outputs map[string]Output
	System  string
	Builder string
	Args    []string
	Env     map[string]string
}

// Output is what is known of one before it is built.
type Output struct {
	Path          string // empty if it depends on the contents
	HashAlgorithm string // of an output whose contents are known; else empty
	Hash          string
}

// Parse reads a derivation, and checks its form.
func Parse(text []byte) (*Derivation, error) {
	p := parser{text: text}
	d := &Derivation{Outputs: map[string]Output{}, Env: map[string]string{}}
	p.expect("Derive(")
	p.list(func() {
		fields := p.tuple(4)
		if _, twice := d.Outputs[fields[0]]; twice || fields[0] == "" {
			p.fail(fmt.Errorf("output %q has no name of its own", fields[0]))
		}
		d.Outputs[fields[0]] = Output{Path: fields[1], HashAlgorithm: fields[2], Hash: fields[3]}
	})
	p.expect(",")
	p.list(func() { // the derivations of inputs, and which outputs of them
		p.expect("(")
		p.string()
		p.expect(",")
		p.list(func() { p.string() })
		p.expect(")")
	})
	p.expect(",")
	p.list(func() { p.string() }) // sources
	p.expect(",")
	d.System = p.string()
	p.expect(",")
	d.Builder = p.string()
	p.expect(",")
	p.list(func() { d.Args = append(d.Args, p.string()) })
	p.expect(",")
	p.list(func() {
		fields := p.tuple(2)
		if _, twice := d.Env[fields[0]]; twice {
			p.fail(fmt.Errorf("variable %q comes twice", fields[0]))
		}
		d.Env[fields[0]] = fields[1]
	})
	p.expect(")")
	if p.err == nil && len(p.text) > 0 {
		p.fail(errors.New("something comes after it"))
	}
	if p.err == nil && len(d.Outputs) == 0 {
		p.fail(errors.New("it has no output"))
	}
	return d, p.err
}

// parser goes through text until something is wrong.
type parser struct {
	text []byte
	at   int
	err  error
}

func (p *parser) fail(err error) {
	if p.err == nil {
		p.err = fmt.Errorf("not a derivation: byte %d: %w", p.at, err)
	}
	p.text = nil
}

func (p *parser) expect(token string) {
	if !strings.HasPrefix(string(p.text[:min(len(token), len(p.text))]), token) {
		p.fail(fmt.Errorf("%q is expected", token))
		return
	}
	p.text, p.at = p.text[len(token):], p.at+len(token)
}

func (p *parser) next(c byte) bool { return len(p.text) > 0 && p.text[0] == c }

func (p *parser) list(item func()) {
	p.expect("[")
	for first := true; p.err == nil && !p.next(']'); first = false {
		if !first {
			p.expect(",")
		}
		item()
	}
	p.expect("]")
}

func (p *parser) tuple(n int) []string {
	fields := make([]string, n)
	for i := range fields {
		p.expect("(,"[min(i, 1):][:1])
		fields[i] = p.string()
	}
	p.expect(")")
	return fields
}

// string reads a string in quotes, in which a backslash stands before what is not to
// be taken literally.
func (p *parser) string() string {
	p.expect(`"`)
	var b strings.Builder
	for i := 0; i < len(p.text); i++ {
		c := p.text[i]
		if c == '"' {
			p.text, p.at = p.text[i+1:], p.at+i+1
			return b.String()
		}
		if c == '\\' {
			if i++; i == len(p.text) {
				break
			}
			c = p.text[i]
			if n := strings.IndexByte("nrt", c); n >= 0 {
				c = "\n\r\t"[n]
			}
		}
		b.WriteByte(c)
	}
	p.fail(errors.New("a string has no end"))
	return ""
}
