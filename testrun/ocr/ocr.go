// Package ocr reads the text in a picture of a screen with the program
// tesseract. [New] makes an [Engine]; [Engine.Read] takes a picture.
//
// A picture is read several times: as it is, and prepared in two ways, because
// text of little contrast, or light on dark, is found in one that is missed in
// the other.
package ocr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// ErrNoProgram says that tesseract is not installed. The text is that of
// nixpkgs' driver.
var ErrNoProgram = errors.New("OCR requested but `tesseract` is not available")

// runLimit ends a run of tesseract; a screen takes it a second or two.
const runLimit = 2 * time.Minute

// Engine runs tesseract, a bounded number of times at once. It is safe for
// concurrent use.
type Engine struct {
	slots    chan struct{}
	noLegacy atomic.Bool // the installed models are for the LSTM engine only
}

// New returns an engine that runs at most workers programs at once, one thread
// each; at least one.
func New(workers int) *Engine {
	return &Engine{slots: make(chan struct{}, max(1, workers))}
}

// Read reads a picture, a PNG, and hands each reading to found as it comes, in
// no order, one at a time. It returns when found has returned true, or when
// all readings were had; then without error only if found was called for each.
// With onlyRaw set there is one reading, of the picture as it is. When ctx
// ends, the programs are killed and its cause is returned.
func (e *Engine) Read(ctx context.Context, picture []byte, onlyRaw bool, found func(text string) (stop bool)) error {
	program, err := exec.LookPath("tesseract")
	if err != nil {
		return ErrNoProgram
	}
	// Nothing but found and failures end the group, so that each is told from
	// the other.
	errFound := errors.New("found")
	g, ctx := errgroup.WithContext(ctx)
	texts := make(chan string)
	read := func(data []byte) error {
		text, err := e.run(ctx, program, data)
		if err != nil {
			return err
		}
		select {
		case texts <- text:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	g.Go(func() error { return read(picture) })
	pending := 1
	if !onlyRaw {
		grey := sync.OnceValues(func() (*image.Gray, error) { return prepare(picture) })
		for _, variant := range []func(*image.Gray) *image.Gray{positive, negative} {
			pending++
			g.Go(func() error {
				grey, err := grey()
				if err != nil {
					return err
				}
				data, err := encode(variant(grey))
				if err != nil {
					return err
				}
				return read(data)
			})
		}
	}
	g.Go(func() error {
		for range pending {
			select {
			case text := <-texts:
				if found(text) {
					return errFound
				}
			case <-ctx.Done():
				return nil
			}
		}
		return nil
	})
	if err := g.Wait(); !errors.Is(err, errFound) {
		return err
	}
	return nil
}

// run has tesseract read one picture.
func (e *Engine) run(ctx context.Context, program string, picture []byte) (string, error) {
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	mode := "2" // both engines
	if e.noLegacy.Load() {
		mode = "3" // what there is
	}
	text, complaint, err := tesseract(ctx, program, picture, mode)
	if err != nil && mode == "2" && strings.Contains(complaint, "(legacy) engine requested") {
		// The models that some distributions package are smaller than those of
		// nixpkgs.
		e.noLegacy.Store(true)
		text, complaint, err = tesseract(ctx, program, picture, "3")
	}
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("tesseract: %w: %s", err, complaint)
	}
	return text, nil
}

func tesseract(ctx context.Context, program string, picture []byte, mode string) (text, complaint string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, runLimit, fmt.Errorf("no answer within %v", runLimit))
	defer cancel()
	// Page segmentation 11: text in any place and order.
	cmd := exec.CommandContext(ctx, program, "-", "-", "--oem", mode, "-c", "debug_file=/dev/null", "--psm", "11")
	// Several threads spend most of their time waiting for each other.
	cmd.Env = append(os.Environ(), "OMP_THREAD_LIMIT=1")
	cmd.Stdin = bytes.NewReader(picture)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// The signal comes at the end of the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	if err = cmd.Run(); err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return strings.ToValidUTF8(stdout.String(), "\uFFFD"), strings.TrimSpace(stderr.String()), err
}
