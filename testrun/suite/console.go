package suite

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Console shows progress: a line for every start and end and, on a terminal, a
// last line that says what is running.
type Console struct {
	w        io.Writer
	terminal bool
	width    func() int
	stop     chan struct{}
	ticker   sync.WaitGroup

	mu      sync.Mutex
	running map[string]time.Time // start of each running test
	done    int
	bad     int
	total   int
}

// NewConsole returns a console on w. width, nil when w is not a terminal,
// returns the terminal's width in columns. Close ends it.
func NewConsole(w io.Writer, width func() int) *Console {
	c := &Console{w: w, width: width, terminal: width != nil, stop: make(chan struct{}), running: map[string]time.Time{}}
	if c.terminal {
		c.ticker.Go(c.tick)
	}
	return c
}

// Close removes the status line.
func (c *Console) Close() {
	close(c.stop)
	c.ticker.Wait()
	if c.terminal {
		fmt.Fprint(c.w, "\r\x1b[K")
	}
}

// Progress is an [Options].Progress.
func (c *Console) Progress(p Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total = p.Total
	if p.Result == nil {
		c.running[p.Name] = time.Now()
		if !c.terminal {
			fmt.Fprintf(c.w, "start     %s\n", p.Name)
		}
	} else {
		delete(c.running, p.Name)
		c.done++
		c.show(p.Result)
	}
	c.status()
}

// show prints the end of a test; c.mu is held.
func (c *Console) show(r *Result) {
	if c.terminal {
		fmt.Fprint(c.w, "\r\x1b[K")
	}
	fmt.Fprintf(c.w, "%-9s %s (%s, %d/%d)\n", r.Status, r.Name, seconds(r.Duration()), c.done, c.total)
	if r.Status == Passed {
		return
	}
	c.bad++
	fmt.Fprintf(c.w, "  %s\n", strings.ReplaceAll(r.Reason, "\n", "\n  "))
	for _, line := range r.Tail {
		fmt.Fprintf(c.w, "  | %s\n", plainText(line))
	}
	if r.Log != "" {
		fmt.Fprintf(c.w, "  log: %s\n", r.Log)
	}
}

// status rewrites the last line of a terminal; c.mu is held.
func (c *Console) status() {
	if !c.terminal || len(c.running) == 0 {
		return
	}
	words := []string{fmt.Sprintf("[%d/%d]", c.done, c.total)}
	if c.bad > 0 {
		words = append(words, fmt.Sprintf("%d not passed,", c.bad))
	}
	for _, name := range slices.Sorted(maps.Keys(c.running)) {
		words = append(words, fmt.Sprintf("%s %ds", name, int(time.Since(c.running[name]).Seconds())))
	}
	line := strings.Join(words, " ")
	if width := c.width(); len(line) >= width {
		line = line[:max(width-1, 0)]
	}
	fmt.Fprintf(c.w, "\r\x1b[K%s", line)
}

func (c *Console) tick() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-c.stop:
			return
		case <-ticker.C:
			c.mu.Lock()
			c.status()
			c.mu.Unlock()
		}
	}
}
