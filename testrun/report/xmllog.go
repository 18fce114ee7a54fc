package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"vm-prebuild/testrun/event"
)

// XMLLog writes the log of a test as the XML that nixpkgs' driver writes to
// $LOGFILE: lines, and nests of them with a head, all without line feeds in
// between.
//
//	<logfile><nest><head machine="a">must succeed: true</head>
//	<line machine="a" type="serial">text</line><line>(finished: …)</line></nest></logfile>
//
// Every event is in the file before the next one is handled.
type XMLLog struct {
	out   *stream
	level event.Level
	nests []nest // open, the innermost last
}

// nest is a block whose element is open. Blocks of different machines may end
// in any order, elements cannot: one whose block has ended stays open until
// those within it have ended, too.
type nest struct {
	id    uint64
	ended bool
}

// NewXMLLog returns a sink that writes to file, from now on. Messages below
// level are left out, as nixpkgs' driver does.
func NewXMLLog(file string, level event.Level) (*XMLLog, error) {
	out, err := openStream("XML log", file)
	if err != nil {
		return nil, err
	}
	x := &XMLLog{out: out, level: level}
	if !out.discards() {
		out.WriteString(`<?xml version="1.0" encoding="utf-8"?>` + "\n<logfile>")
	}
	return x, nil
}

// Handle implements event.Sink.
func (x *XMLLog) Handle(r event.Record) {
	if x.out.discards() {
		return
	}
	switch e := r.Event.(type) {
	case event.Log:
		if e.Always || e.Level >= x.level {
			x.element("line", of(e.Machine), printable(e.Text))
		}
	case event.Output:
		x.element("line", of(e.Machine), printable(e.Text))
	case event.Serial:
		x.element("line", of(e.Machine)+` type="serial"`, visible(e.Text))
	case event.TestFailure:
		for _, l := range e.Lines {
			x.element("line", "", printable(l))
		}
	case event.BlockOpen:
		x.nests = append(x.nests, nest{id: e.ID})
		x.out.WriteString("<nest>")
		x.element("head", attributes(e), printable(e.Text))
	case event.BlockClose:
		if e.Failure == "" {
			x.element("line", "", printable(finished(e)))
		}
		x.end(e.ID)
	default:
		return
	}
	// An error stays with the writer and is reported by close.
	_ = x.out.Flush()
}

// Close implements event.Sink: it ends all elements.
func (x *XMLLog) Close() error {
	if !x.out.discards() {
		x.out.WriteString(strings.Repeat("</nest>", len(x.nests)) + "</logfile>")
	}
	return x.out.close()
}

func (x *XMLLog) element(name, attributes, text string) {
	x.out.WriteString("<" + name + attributes + ">")
	_, _ = xmlText.WriteString(x.out, text)
	x.out.WriteString("</" + name + ">")
}

func (x *XMLLog) end(id uint64) {
	i := slices.IndexFunc(x.nests, func(n nest) bool { return n.id == id })
	if i < 0 {
		return
	}
	x.nests[i].ended = true
	for n := len(x.nests); n > 0 && x.nests[n-1].ended; n-- {
		x.nests = x.nests[:n-1]
		x.out.WriteString("</nest>")
	}
}

// attributes are those of a block's head: its machine, then the others.
func attributes(e event.BlockOpen) string {
	all := of(e.Machine)
	for _, name := range slices.Sorted(maps.Keys(e.Attrs)) {
		if name != "machine" && isXMLName(name) {
			all += " " + name + `="` + xmlAttribute.Replace(printable(e.Attrs[name])) + `"`
		}
	}
	return all
}

func of(machine string) string {
	if machine == "" {
		return ""
	}
	return ` machine="` + xmlAttribute.Replace(printable(machine)) + `"`
}

// finished is what nixpkgs' driver says at the end of a block.
func finished(e event.BlockClose) string {
	return fmt.Sprintf("(finished: %s, in %.2f seconds)", e.Text, e.Duration.Seconds())
}

// visible is printable without all that Unicode calls other, as in nixpkgs'
// driver.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.C, r) {
			return -1
		}
		return r
	}, printable(s))
}

// xmlText escapes as little as XML allows: people grep the log.
var (
	xmlText      = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	xmlAttribute = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "\n", "&#10;", "\t", "&#9;")
)

// isXMLName is narrower than XML is.
func isXMLName(s string) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
		inner := r >= '0' && r <= '9' || r == '-' || r == '.'
		if !letter && (i == 0 || !inner) {
			return false
		}
	}
	return s != ""
}
