package machine

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/pyregexp"
)

// TextReader reads the text in pictures, PNG files in memory. It hands the
// readings of one picture to found as they come until that returns true; with
// onlyRaw set there is but one.
type TextReader interface {
	Read(ctx context.Context, picture []byte, onlyRaw bool, found func(text string) (stop bool)) error
}

// Screen takes a picture of the screen, a PNG.
func (g *Guest) Screen(ctx context.Context) ([]byte, error) {
	s, err := capability[Screenshotter](g.Machine, "take screenshots")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(g.Machine.Dirs().State, "screen-")
	if err != nil {
		return nil, Errorf(g.Machine.Name(), "picture of the screen: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "screen.png")
	if err := s.Screenshot(ctx, file); err != nil {
		return nil, err
	}
	picture, err := os.ReadFile(file)
	if err != nil {
		return nil, Errorf(g.Machine.Name(), "picture of the screen: %w", err)
	}
	return picture, nil
}

// read reads a picture with the guest's reader.
func (g *Guest) read(ctx context.Context, picture []byte, onlyRaw bool, found func(string) bool) error {
	if g.Reader == nil {
		return Errorf(g.Machine.Name(), "this driver cannot read the text of screens")
	}
	err := g.Reader.Read(ctx, picture, onlyRaw, found)
	if err != nil && ctx.Err() == nil {
		return Errorf(g.Machine.Name(), "%w", err)
	}
	return err
}

// ScreenText returns the text that the screen shows.
func (g *Guest) ScreenText(ctx context.Context) (string, error) {
	texts, err := g.screenTexts(ctx, true)
	if err != nil {
		return "", err
	}
	return texts[0], nil
}

// ScreenTextVariants returns several readings of what the screen shows, in no
// order, at least one.
func (g *Guest) ScreenTextVariants(ctx context.Context) ([]string, error) {
	return g.screenTexts(ctx, false)
}

func (g *Guest) screenTexts(ctx context.Context, onlyRaw bool) ([]string, error) {
	picture, err := g.Screen(ctx)
	if err != nil {
		return nil, err
	}
	var texts []string
	err = g.read(ctx, picture, onlyRaw, func(text string) bool {
		texts = append(texts, text)
		return false
	})
	return texts, err
}

// WaitForText waits until a regular expression of Python matches a reading of
// the screen. A reading that has begun is not given up at the time-out, so
// that a time-out of any length gives the screen one look. Screens that were
// seen before are not read again.
func (g *Guest) WaitForText(ctx context.Context, regex string, timeout time.Duration) error {
	re, err := pyregexp.Compile(regex)
	if err != nil {
		return Errorf(g.Machine.Name(), "%w", err)
	}
	return g.nested(fmt.Sprintf("waiting for %s to appear on screen", regex), func() error {
		start := time.Now()
		type screen = [sha256.Size]byte
		seen := map[screen][]string{} // a cursor that blinks makes two of them
		var last screen
		for rest := 20 * time.Millisecond; ; rest = min(2*rest, time.Second/4) {
			late := time.Since(start) >= timeout
			if g.Between != nil {
				if err := g.Between(ctx); err != nil {
					return err
				}
			}
			picture, err := g.Screen(ctx)
			if err != nil {
				return err
			}
			last = sha256.Sum256(picture)
			if _, known := seen[last]; !known {
				texts, ok, err := g.readFor(ctx, re, picture)
				if ok || err != nil {
					return err
				}
				seen[last] = texts
				rest = 20 * time.Millisecond
			}
			if late {
				g.Bus.Say(g.Machine.Name(), "Last OCR attempt failed. Text was: "+pythonList(seen[last]))
				return timedOut(start, timeout)
			}
			if err := pause(ctx, rest); err != nil {
				return err
			}
		}
	})
}

// readFor reads a picture until re matches, and returns the readings that it
// had.
func (g *Guest) readFor(ctx context.Context, re *pyregexp.Regexp, picture []byte) (texts []string, ok bool, err error) {
	var failed error
	err = g.read(ctx, picture, false, func(text string) bool {
		texts = append(texts, text)
		ok, failed = re.Search(text)
		return ok || failed != nil
	})
	if failed != nil {
		return nil, false, Errorf(g.Machine.Name(), "%w", failed)
	}
	return texts, ok, err
}

// Screenshot writes a picture of the screen to file and returns its path. A
// name without a directory means one in the directory for results; one without
// a dot gets ".png".
func (g *Guest) Screenshot(ctx context.Context, dir, file string) (string, error) {
	s, err := capability[Screenshotter](g.Machine, "take screenshots")
	if err != nil {
		return "", err
	}
	if !strings.Contains(file, ".") {
		file += ".png"
	}
	switch {
	case !strings.Contains(file, "/"):
		file = filepath.Join(g.Machine.Dirs().Out, file)
	case !filepath.IsAbs(file):
		file = filepath.Join(dir, file)
	}
	block := g.Bus.Open(event.BlockOpen{
		Machine: g.Machine.Name(),
		Text:    "making screenshot " + file,
		Attrs:   map[string]string{"image": filepath.Base(file)},
	})
	if err := s.Screenshot(ctx, file); err != nil {
		block.Close(err.Error())
		return file, err
	}
	g.Bus.Emit(event.Artifact{Machine: g.Machine.Name(), Kind: "screenshot", Path: file})
	block.Close("")
	return file, nil
}
