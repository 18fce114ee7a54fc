package closureimport

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"vm-prebuild/storedb"
)

// progress shows how far an import has come: a bar on a terminal, a line for
// each phase elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	phase    storedb.Phase
	bar      *progressbar.ProgressBar // of phase; nil if there is none
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// phaseName is what a phase is called here. That of locking is over at once, or
// says what is waited for.
func phaseName(p storedb.Phase) string {
	switch p {
	case storedb.PhaseLock:
		return ""
	case storedb.PhasePlace:
		return "placing files"
	case storedb.PhaseVerify:
		return "verifying hashes"
	case storedb.PhaseRegister:
		return "registering paths"
	}
	return string(p)
}

func (p *progress) show(s storedb.Progress) {
	if s.Waiting != "" {
		p.close()
		p.phase = s.Phase
		fmt.Fprintln(p.w, "waiting for "+s.Waiting)
		return
	}
	if s.Phase != p.phase {
		p.close()
		p.phase = s.Phase
		p.begin(s)
	}
	if p.bar != nil {
		p.bar.Describe(fmt.Sprintf("%s, %d of %d paths", phaseName(s.Phase), s.Paths, s.TotalPaths))
		_ = p.bar.Set64(s.Bytes) // it can only fail to draw
	}
}

// begin shows the beginning of a phase.
func (p *progress) begin(s storedb.Progress) {
	name := phaseName(s.Phase)
	if name == "" || s.TotalPaths == 0 {
		return
	}
	if !p.terminal {
		fmt.Fprintf(p.w, "%s: %d paths, %s\n", name, s.TotalPaths, megabytes(s.TotalBytes))
		return
	}
	p.bar = progressbar.NewOptions64(s.TotalBytes,
		progressbar.OptionSetWriter(p.w), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
}

// close removes the bar.
func (p *progress) close() {
	if p.bar != nil {
		_ = p.bar.Clear() // it can only fail to draw
		p.bar = nil
	}
}
