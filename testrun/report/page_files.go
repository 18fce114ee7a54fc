package report

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// The bounds of what a page takes from files, in bytes, and lines of a script.
const (
	maxPicture    = 8 << 20
	maxJournal    = 256 << 10
	maxScriptLine = 64 << 10
	sourceContext = 10
)

// sourceLine is a line of a test script.
type sourceLine struct {
	Number int
	Text   string
	Failed bool
}

// source returns a line of a script and those around it; nil when there is no
// such script or line.
func source(script string, line int) []sourceLine {
	if script == "" || line < 1 {
		return nil
	}
	f, err := os.Open(script)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	var lines []sourceLine
	found := false
	in := bufio.NewScanner(f)
	in.Buffer(nil, maxScriptLine)
	for n := 1; n <= line+sourceContext && in.Scan(); n++ {
		if n >= line-sourceContext {
			found = found || n == line
			lines = append(lines, sourceLine{Number: n, Text: clean(in.Text(), maxConsoleRow), Failed: n == line})
		}
	}
	if !found {
		return nil
	}
	return lines
}

// picture returns an image file as a data URI.
func picture(file string) (template.URL, error) {
	data, cutOff, err := readEnd(file, maxPicture)
	if err != nil {
		return "", err
	}
	kind := http.DetectContentType(data)
	switch {
	case cutOff:
		return "", fmt.Errorf("larger than %d MiB", maxPicture>>20)
	case kind != "image/png" && kind != "image/jpeg":
		return "", errors.New("neither PNG nor JPEG")
	}
	// Base64 has no character that means anything to HTML.
	return template.URL("data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(data)), nil
}

// readEnd reads the last limit bytes of a regular file.
func readEnd(file string, limit int64) (data []byte, cutOff bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, false, unpath(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, false, unpath(err)
	}
	if !info.Mode().IsRegular() {
		return nil, false, errors.New("not a regular file")
	}
	from := max(0, info.Size()-limit)
	data, err = io.ReadAll(io.NewSectionReader(f, from, limit))
	return data, from > 0, err
}

// link is the address of a file as seen from the page; "" where a link would
// not survive that the page's directory is moved.
func link(page, file string) string {
	rel, err := filepath.Rel(filepath.Dir(page), file)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return ""
	}
	return "./" + rel // a colon in the name makes no scheme of it
}

// ShellCommand quotes a command line for a POSIX shell, an option to a line.
func ShellCommand(args []string) string {
	var b strings.Builder
	for i, a := range args {
		switch {
		case i > 0 && strings.HasPrefix(a, "-"):
			b.WriteString(" \\\n  ")
		case i > 0:
			b.WriteByte(' ')
		}
		b.WriteString(shellWord(a))
	}
	return b.String()
}

// shellWord quotes a word unless all of it means itself.
func shellWord(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:,=+@%", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
