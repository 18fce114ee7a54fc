package report

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"time"
)

// longest keeps the longest of the blocks that have ended: what is too short to
// be seen is left out first.
type longest struct {
	blocks byDuration
	total  int
}

func (l *longest) add(block *entry, limit int) {
	l.total++
	heap.Push(&l.blocks, block)
	if len(l.blocks) > limit {
		heap.Pop(&l.blocks)
	}
}

// byDuration is a heap with the shortest block on top.
type byDuration []*entry

func (b byDuration) Len() int           { return len(b) }
func (b byDuration) Less(i, j int) bool { return b[i].duration < b[j].duration }
func (b byDuration) Swap(i, j int)      { b[i], b[j] = b[j], b[i] }
func (b *byDuration) Push(x any)        { *b = append(*b, x.(*entry)) }

func (b *byDuration) Pop() any {
	last := len(*b) - 1
	e := (*b)[last]
	*b = (*b)[:last]
	return e
}

// Sizes in pixels: vertical ones only, as widths are shares of the whole.
const (
	axisHeight  = 24
	rowHeight   = 22
	barHeight   = 18
	lanePadding = 8
	maxRows     = 8 // of nested blocks in a lane
	maxTicks    = 12
)

// timeline is the picture of a test: a lane for the script and one for each
// machine.
type timeline struct {
	Height  int
	Lanes   []lane
	Ticks   []tick
	Markers []marker
	Dropped int // blocks that are not drawn
}

type lane struct {
	Name   string // of the machine; empty for the script
	Top    int
	Height int
	Bars   []bar
}

// bar is a span of time. X and Width are in percent.
type bar struct {
	X, Width  float64
	Y, Height int
	Class     string
	Label     string
	Title     string // tooltip
	Target    string // id of an element of the page; may be empty
}

type tick struct {
	X     float64
	Label string
}

// marker is a moment: a screenshot of a lane, or a failure of them all.
type marker struct {
	X             float64
	Top, Bottom   int
	Class         string
	Title, Target string
}

// scale turns times into percents of the test's duration.
type scale struct{ total time.Duration }

func (s scale) x(t time.Duration) float64 {
	return min(max(100*t.Seconds()/s.total.Seconds(), 0), 100)
}

func (s scale) bar(from, to time.Duration, row int, class, label, title string) bar {
	x := s.x(from)
	return bar{X: x, Width: max(s.x(to)-x, 0), Y: row * rowHeight, Height: barHeight, Class: class, Label: label, Title: title}
}

// timeline draws what has been collected. targets says which entries are on
// the page.
func (p *Page) timeline(targets func(*entry) string) timeline {
	s := scale{total: max(p.now(), time.Millisecond)}
	t := timeline{Dropped: p.bars.total - len(p.bars.blocks)}
	bars := p.blockBars(s, targets)
	lanes := []lane{{Bars: bars[""]}}
	for _, m := range p.machines {
		lanes = append(lanes, lane{Name: m.name, Bars: append(m.runBars(s), bars[m.name]...)})
		delete(bars, m.name)
	}
	y := axisHeight
	for i := range lanes {
		l := &lanes[i]
		l.Top = y
		l.Height = rowHeight + lanePadding
		for j := range l.Bars {
			l.Height = max(l.Height, l.Bars[j].Y+rowHeight+lanePadding)
			l.Bars[j].Y += y + lanePadding/2
		}
		y += l.Height
	}
	t.Lanes, t.Height = lanes, y
	t.Ticks = s.ticks()
	t.Markers = p.markers(s, lanes, y)
	return t
}

// blockBars are the blocks by machine, in rows by how deep they are nested.
// The first row of a machine shows whether it runs.
func (p *Page) blockBars(s scale, targets func(*entry) string) map[string][]bar {
	blocks := slices.Clone(p.bars.blocks)
	for _, o := range p.open { // cut off by the test's end
		o.duration = p.now() - o.at
		blocks = append(blocks, o)
	}
	slices.SortFunc(blocks, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	bars := map[string][]bar{}
	for _, e := range blocks {
		row := e.depth
		if e.machine != "" {
			row++
		}
		if row >= maxRows {
			continue
		}
		title := fmt.Sprintf("%s\n%s, from %s", e.text, lasting(e.duration), clock(e.at))
		class := blockClass(e)
		if e.failure != "" {
			class += " failed"
			title += "\nfailed: " + cut(firstLine(e.failure), 200)
		}
		label := e.text
		if e.subtest != "" {
			label = e.subtest
		}
		b := s.bar(e.at, e.at+e.duration, row, class, cut(label, 120), title)
		b.Target = targets(e)
		bars[e.machine] = append(bars[e.machine], b)
	}
	return bars
}

// blockClass tells by a block's phrase what it is.
func blockClass(e *entry) string {
	switch {
	case e.subtest != "":
		return "subtest"
	case strings.HasPrefix(e.text, "waiting for"):
		return "wait"
	case strings.HasPrefix(e.text, "must "):
		return "run"
	}
	return "step"
}

// runBars show a machine's boots and the time that it ran.
func (m *pageMachine) runBars(s scale) []bar {
	var bars []bar
	for i, r := range m.runs {
		end := s.total
		ended := "until the test's end"
		if r.stopped > 0 {
			end, ended = r.stopped, "ended: "+r.reason
		} else if i+1 < len(m.runs) {
			end = m.runs[i+1].started
		}
		booted := r.connected
		boot := "boot: root shell after " + lasting(r.connected-r.started)
		if booted == 0 {
			booted = end
			boot = "boot: its root shell was not used"
		}
		bars = append(bars, s.bar(r.started, booted, 0, "boot", "boot", m.name+"\n"+boot+"\n"+ended))
		if booted < end {
			bars = append(bars, s.bar(booted, end, 0, "up", "up", fmt.Sprintf("%s\nup for %s\n%s", m.name, lasting(end-booted), ended)))
		}
		if r.stopped > 0 && !r.expected {
			bars[len(bars)-1].Class += " failed"
		}
	}
	return bars
}

func (p *Page) markers(s scale, lanes []lane, bottom int) []marker {
	var markers []marker
	for i, f := range p.pictures() {
		for _, l := range lanes {
			if l.Name == f.Machine {
				markers = append(markers, marker{X: s.x(f.at), Top: l.Top, Bottom: l.Top + l.Height, Class: "shot",
					Title: "screenshot at " + clock(f.at), Target: pictureID(i)})
			}
		}
	}
	for i, f := range p.failures {
		markers = append(markers, marker{X: s.x(f.at), Top: axisHeight - 6, Bottom: bottom, Class: "failure",
			Title: "failed at " + clock(f.at), Target: failureID(i)})
	}
	return markers
}

// steps are the distances of ticks that people like.
var steps = [...]time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour,
}

func (s scale) ticks() []tick {
	step := steps[len(steps)-1]
	for _, d := range steps {
		if s.total/d <= maxTicks {
			step = d
			break
		}
	}
	for s.total/step > maxTicks {
		step *= 2
	}
	var ticks []tick
	for at := time.Duration(0); at <= s.total; at += step {
		label := at.String()
		switch {
		case at == 0:
			label = "0"
		case step >= time.Second && at >= time.Minute:
			label = fmt.Sprintf("%d:%02d", int(at.Minutes()), int(at.Seconds())%60)
		}
		ticks = append(ticks, tick{X: s.x(at), Label: label})
	}
	return ticks
}

// clock is a time since the test's begin: "12.345", "2:03.500".
func clock(at time.Duration) string {
	if at < time.Minute {
		return fmt.Sprintf("%.3f", at.Seconds())
	}
	minutes := int(at / time.Minute)
	return fmt.Sprintf("%d:%06.3f", minutes, (at - time.Duration(minutes)*time.Minute).Seconds())
}

// lasting is a duration in two to four digits: "3 ms", "1.25 s", "2 min 3 s".
func lasting(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}
