package main

import (
	"fmt"
	"time"

	"github.com/schollz/progressbar/v3"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/nar/binarycache"
)

// exportProgress shows how far an export has come: a bar on a terminal, one
// line elsewhere.
type exportProgress struct {
	out     *cli.IO
	started bool
	bar     *progressbar.ProgressBar // nil if there is none
}

func newExportProgress(out *cli.IO) *exportProgress { return &exportProgress{out: out} }

func (p *exportProgress) show(s binarycache.Progress) {
	if !p.started {
		p.started = true
		if p.out.Width() == nil {
			fmt.Fprintf(p.out.Stderr, "compressing: %d paths, %s\n", s.TotalPaths, megabytes(s.TotalBytes))
		} else {
			p.bar = progressbar.NewOptions64(s.TotalBytes,
				progressbar.OptionSetWriter(p.out.Stderr), progressbar.OptionShowBytes(true),
				progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
		}
	}
	if p.bar != nil {
		p.bar.Describe(fmt.Sprintf("compressing, %d of %d paths", s.Paths, s.TotalPaths))
		_ = p.bar.Set64(s.Bytes) // it can only fail to draw
	}
}

// close removes the bar.
func (p *exportProgress) close() {
	if p.bar != nil {
		_ = p.bar.Clear() // it can only fail to draw
		p.bar = nil
	}
}

// packProgress shows how far the packing of a state has come: a bar on a terminal,
// nothing elsewhere, where a line tells the result a few seconds later.
type packProgress struct {
	out *cli.IO
	key string
	bar *progressbar.ProgressBar // nil if there is none
}

func (p *packProgress) show(done, of int64) {
	if p.bar == nil {
		if p.out.Width() == nil {
			return
		}
		p.bar = progressbar.NewOptions64(of, progressbar.OptionSetWriter(p.out.Stderr), progressbar.OptionShowBytes(true),
			progressbar.OptionSetDescription("packing "+p.key), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	_ = p.bar.Set64(done) // it can only fail to draw
}

// close removes the bar.
func (p *packProgress) close() {
	if p.bar != nil {
		_ = p.bar.Clear() // it can only fail to draw
	}
}
