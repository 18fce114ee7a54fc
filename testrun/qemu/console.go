package qemu

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
)

// console keeps what the guest writes to its serial port.
type console struct {
	mu   sync.Mutex
	text []string
}

// maxConsoleLine is where a line without an end is broken, so that a guest
// that writes no line feed costs no more than this.
const maxConsoleLine = 64 << 10

// read takes lines from r until it ends and hands each to emit.
func (c *console) read(r io.Reader, emit func(line string)) {
	in := bufio.NewReaderSize(r, maxConsoleLine)
	for {
		raw, err := in.ReadSlice('\n')
		if len(raw) > 0 {
			line := strings.TrimRight(strings.ReplaceAll(strings.ToValidUTF8(string(raw), ""), "\r", ""), " \t\n")
			c.mu.Lock()
			c.text = append(c.text, line)
			c.mu.Unlock()
			emit(line)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (c *console) lines() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.text)
}
