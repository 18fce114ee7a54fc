package shell

import (
	"bytes"
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// lineReader hands on lines of a console, and keeps those of the command that
// runs.
type lineReader struct {
	conn net.Conn
	emit func(string)
	key  string
	// forgets says whether an error of conn's only means that what was read so far
	// is to be dropped.
	forgets func(net.Conn, error) bool

	partial sync.Mutex
	begun   []byte // a line that has not ended; guarded by partial

	mu     sync.Mutex
	kept   []byte
	marked uint64        // number of the last mark
	news   chan struct{} // closed and replaced at each mark
}

// maxKept bounds what is kept of a command's standard error: its end.
const maxKept = 64 << 10

func newLineReader(conn net.Conn, emit func(string), key string, forgets func(net.Conn, error) bool) *lineReader {
	return &lineReader{conn: conn, emit: emit, key: key, forgets: forgets, news: make(chan struct{})}
}

func (l *lineReader) read() {
	chunk := make([]byte, 16<<10)
	for {
		n, err := l.conn.Read(chunk)
		l.take(chunk[:n])
		if l.forgets(l.conn, err) {
			l.partial.Lock()
			l.begun = nil
			l.partial.Unlock()
			continue
		}
		if err != nil {
			return
		}
	}
}

// take handles the lines that p completes.
func (l *lineReader) take(p []byte) {
	l.partial.Lock()
	defer l.partial.Unlock()
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		l.begun = append(l.begun, line...)
		if ended || len(l.begun) > maxKept {
			l.line(l.begun)
			l.begun = l.begun[:0]
		}
		p = rest
	}
}

func (l *lineReader) line(raw []byte) {
	text := strings.TrimRight(strings.ToValidUTF8(string(raw), "\uFFFD"), "\r\n")
	before, number, marked := strings.Cut(text, l.key)
	if before != "" || !marked {
		l.mu.Lock()
		l.kept = append(append(l.kept, before...), '\n')
		if over := len(l.kept) - maxKept; over > 0 {
			l.kept = bytes.Clone(l.kept[over:])
		}
		l.mu.Unlock()
		l.emit(before)
	}
	if n, err := strconv.ParseUint(number, 10, 64); marked && err == nil {
		l.mu.Lock()
		l.marked = n
		close(l.news)
		l.news = make(chan struct{})
		l.mu.Unlock()
	}
}

// forget drops what earlier commands have written. A line that they have not
// ended ends here.
func (l *lineReader) forget() {
	l.partial.Lock()
	if len(l.begun) > 0 {
		l.line(l.begun)
		l.begun = l.begun[:0]
	}
	l.partial.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept = nil
}

// markLimit is how long a mark may take that the guest has written: QEMU drops
// what a console's socket cannot take.
const markLimit = time.Second

// until returns what a command has written so far or, when it is to be marked,
// waits for the mark and returns all that came before.
func (l *lineReader) until(ctx context.Context, number uint64, mark bool) []byte {
	late := time.NewTimer(markLimit)
	defer late.Stop()
	for {
		l.mu.Lock()
		kept, marked, news := l.kept, l.marked, l.news
		l.mu.Unlock()
		if marked >= number || !mark {
			return bytes.Clone(kept)
		}
		select {
		case <-news:
		case <-late.C:
			return bytes.Clone(kept)
		case <-ctx.Done():
			return bytes.Clone(kept)
		}
	}
}
