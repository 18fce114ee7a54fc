package ocr_test

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/ocr"
)

func needTesseract(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("tesseract"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// console is the screen of a real QEMU, recorded by testdata/record.sh.
func console(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/console.png")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// words are what every reading of the console must have.
var words = []string{"Booting from", "Boot failed", "iPXE 1.0.0"}

func TestReadAConsole(t *testing.T) {
	needTesseract(t)
	var texts []string
	collect := func(text string) bool {
		texts = append(texts, text)
		return false
	}
	e := ocr.New(2)
	if err := e.Read(t.Context(), console(t), false, collect); err != nil {
		t.Fatal(err)
	}
	if len(texts) != 3 {
		t.Fatalf("%d readings", len(texts))
	}
	for i, text := range texts {
		for _, word := range words {
			if !strings.Contains(text, word) {
				t.Errorf("reading %d lacks %q:\n%s", i, word, text)
			}
		}
	}
	texts = nil
	if err := e.Read(t.Context(), console(t), true, collect); err != nil || len(texts) != 1 {
		t.Errorf("%d readings of the raw picture: %v", len(texts), err)
	}
}

func TestReadingStopsWhenFound(t *testing.T) {
	needTesseract(t)
	calls := 0
	err := ocr.New(1).Read(t.Context(), console(t), false, func(string) bool {
		calls++
		return true
	})
	if err != nil || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
}

// Text that is hardly lighter than what is behind it is not found as it is.
func TestLowContrast(t *testing.T) {
	needTesseract(t)
	img, err := png.Decode(bytes.NewReader(console(t)))
	if err != nil {
		t.Fatal(err)
	}
	faint := image.NewGray(img.Bounds())
	for y := range faint.Bounds().Dy() {
		for x := range faint.Bounds().Dx() {
			g := color.GrayModel.Convert(img.At(x, y)).(color.Gray)
			faint.SetGray(x, y, color.Gray{Y: 100 + g.Y/16})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, faint); err != nil {
		t.Fatal(err)
	}
	found := false
	err = ocr.New(2).Read(t.Context(), b.Bytes(), false, func(text string) bool {
		found = strings.Contains(text, "Booting from Floppy")
		return found
	})
	if err != nil || !found {
		t.Errorf("found %v, %v", found, err)
	}
}

// script puts a program called tesseract on the PATH.
func script(t *testing.T, body string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tesseract"), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestFailures(t *testing.T) {
	never := func(string) bool { return false }
	t.Run("no program", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		err := ocr.New(1).Read(t.Context(), console(t), true, never)
		if !errors.Is(err, ocr.ErrNoProgram) || err.Error() != "OCR requested but `tesseract` is not available" {
			t.Error(err)
		}
	})
	t.Run("exit code", func(t *testing.T) {
		script(t, "cat >/dev/null; echo out of ink >&2; exit 3")
		err := ocr.New(1).Read(t.Context(), console(t), false, never)
		if err == nil || !strings.Contains(err.Error(), "exit status 3: out of ink") {
			t.Error(err)
		}
	})
	t.Run("hangs", func(t *testing.T) {
		script(t, "exec sleep 600")
		cause := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, cause)
		defer cancel()
		begin := time.Now()
		if err := ocr.New(1).Read(ctx, console(t), false, never); !errors.Is(err, cause) {
			t.Error(err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
	})
	t.Run("no picture", func(t *testing.T) {
		needTesseract(t)
		if err := ocr.New(1).Read(t.Context(), []byte("no picture"), false, never); err == nil {
			t.Error("no error")
		}
	})
}

func TestOptionsOfTesseract(t *testing.T) {
	script(t, `cat >/dev/null
if [ "$4" = 2 ]; then echo "Error: Tesseract (legacy) engine requested, but components are not present" >&2; exit 1; fi
echo "$OMP_THREAD_LIMIT" "$@"`)
	e := ocr.New(1)
	for range 2 {
		err := e.Read(t.Context(), console(t), true, func(text string) bool {
			if text != "1 - - --oem 3 -c debug_file=/dev/null --psm 11\n" {
				t.Errorf("called with %q", text)
			}
			return false
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// No more programs run at once than the engine was given.
func TestWorkersAreBounded(t *testing.T) {
	dir := t.TempDir()
	script(t, `cat >/dev/null
mkdir "`+dir+`/running" || { echo two at once >&2; exit 1; }
sleep 0.1
rmdir "`+dir+`/running"`)
	err := ocr.New(1).Read(t.Context(), console(t), false, func(string) bool { return false })
	if err != nil {
		t.Error(err)
	}
}
