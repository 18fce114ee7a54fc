package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// blockView is an entry of the log and what lies within it.
type blockView struct {
	*entry
	Children []*blockView
	Depth    int  // in how many blocks it is
	open     bool // the block has not ended
}

// tree is the log with every entry in the block that it belongs to. shown gets
// all entries that are in it.
func (p *Page) tree(shown map[*entry]*blockView) []*blockView {
	var all []*entry
	ends := func(what string, w *window[*entry]) {
		head, tail := w.ends()
		all = append(append(all, head...), tail...)
		if n := w.dropped(); n > 0 {
			gap := *tail[0]
			gap.class, gap.text = classGap, fmt.Sprintf("%d %s left out here", n, what)
			gap.seq-- // before it
			all = append(all, &gap)
		}
	}
	ends("lines of the log are", &p.log)
	ends("commands are", &p.commands)
	for _, m := range p.machines {
		ends("lines of the console of "+m.name+" are", &m.console)
	}
	slices.SortStableFunc(all, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })

	var roots []*blockView
	var place func(e *entry) *blockView
	place = func(e *entry) *blockView {
		if v := shown[e]; v != nil {
			return v
		}
		v := &blockView{entry: e, open: slices.Contains(p.open, e)}
		shown[e] = v
		// A block may have been left out of the log while what is within it
		// has not: it is shown all the same.
		if e.parent == nil {
			roots = append(roots, v)
		} else {
			parent := place(e.parent)
			v.Depth = parent.Depth + 1
			parent.Children = append(parent.Children, v)
		}
		return v
	}
	for _, e := range all {
		place(e)
	}
	for _, v := range shown {
		v.Children = grouped(v.Children)
	}
	return grouped(roots)
}

// minGroup is how many lines of consoles in a row are put behind one.
const minGroup = 4

// grouped puts lines of consoles that follow each other into closed blocks: of
// what guests say at boot, the steps of a test would be lost between.
func grouped(entries []*blockView) []*blockView {
	var all []*blockView
	for len(entries) > 0 {
		n := slices.IndexFunc(entries, func(v *blockView) bool { return v.class != classSerial })
		if n < 0 {
			n = len(entries)
		}
		switch {
		case n == 0:
			all = append(all, entries[0])
			n = 1
		case n < minGroup:
			all = append(all, entries[:n]...)
		default:
			all = append(all, group(entries[:n]))
		}
		entries = entries[n:]
	}
	return all
}

func group(lines []*blockView) *blockView {
	var machines []string
	for _, l := range lines {
		if !slices.Contains(machines, l.machine) {
			machines = append(machines, l.machine)
		}
		l.Depth++
	}
	slices.Sort(machines)
	first, last := lines[0], lines[len(lines)-1]
	g := &entry{class: classGroup, seq: first.seq, at: first.at, duration: last.at - first.at,
		text: fmt.Sprintf("%d lines of the console of %s", len(lines), strings.Join(machines, ", "))}
	if len(machines) == 1 {
		g.machine = machines[0]
	}
	return &blockView{entry: g, Children: lines, Depth: first.Depth - 1}
}

// Running reports whether the block had not ended when the page was written.
func (v *blockView) Running() bool { return v.open }

// Block reports whether the entry can have others within it.
func (v *blockView) Block() bool { return v.class == classBlock || v.class == classGroup }

// Inner is the depth of what is within the block.
func (v *blockView) Inner() int { return v.Depth + 1 }

// Reason is why the block failed; "" when a block within it says so.
func (v *blockView) Reason() string {
	for _, c := range v.Children {
		if c.class == classBlock && c.failure != "" {
			return ""
		}
	}
	return v.failure
}

// Open reports whether the reader sees at once what is in the block: those of
// the script, and those that failed.
func (v *blockView) Open() bool {
	return v.class != classGroup && (v.failure != "" || v.open || v.machine == "")
}
