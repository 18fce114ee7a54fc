package prebuild

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func writeHello(w io.Writer) error {
	_, err := io.WriteString(w, "hello")
	return err
}

func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "sub", "target"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(filepath.Dir(target), 0o755), os.WriteFile(target, []byte("old"), 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("failed")
	if err := replaceFile(link, func(w io.Writer) error { return errors.Join(writeHello(w), failed) }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(target); string(got) != "old" {
		t.Errorf("after an error: %q, %v", got, err)
	}
	for _, path := range []string{link, filepath.Join(dir, "new")} {
		if err := replaceFile(path, writeHello); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(path); string(got) != "hello" {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the symlink was replaced: %v", err)
	}
	for _, d := range []string{dir, filepath.Dir(target)} {
		if left, _ := filepath.Glob(filepath.Join(d, ".*")); len(left) > 0 {
			t.Errorf("%s were left", left)
		}
	}
	if err := replaceFile(dir, writeHello); err == nil {
		t.Error("a directory: no error")
	}
}

// What is no file stays what it is.
func TestReplaceFileWritesThrough(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan string)
	go func() {
		text, err := os.ReadFile(fifo)
		if err != nil {
			t.Error(err)
		}
		got <- string(text)
	}()
	if err := replaceFile(fifo, writeHello); err != nil {
		t.Error(err)
	}
	if text := <-got; text != "hello" {
		t.Errorf("got %q", text)
	}
	if info, err := os.Lstat(fifo); err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		t.Errorf("the FIFO was replaced: %v", err)
	}
}
