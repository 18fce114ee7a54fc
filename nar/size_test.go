package nar

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestSizeIsThatOfTheArchive(t *testing.T) {
	dir := t.TempDir()
	oddTree(t, dir)
	for _, name := range []string{"", "empty", "sorted"} {
		path := filepath.Join(dir, name)
		_, want, err := Hash(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Size(t.Context(), path); got != want || err != nil {
			t.Errorf("%q: %d, %v, want %d", name, got, err, want)
		}
	}
	for _, content := range []string{"", "1234567", "12345678", "123456789"} {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		_, want, err := Hash(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Size(t.Context(), file); got != want || err != nil {
			t.Errorf("a file of %q: %d, %v, want %d", content, got, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Size(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Size(t.Context(), "/dev/null"); err == nil {
		t.Error("a device has a size")
	}
}
