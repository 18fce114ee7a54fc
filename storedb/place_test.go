package storedb

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// With MethodHardLink the files of a store made by Import are those of the
// source, and files whose metadata is not a store's are refused.
func TestImportHardLink(t *testing.T) {
	first, again := newTestClosure(t), filepath.Join(t.TempDir(), "again")
	source := filepath.Join(t.TempDir(), "source")
	if _, err := Import(t.Context(), first.options(t, source)); err != nil {
		t.Fatal(err)
	}
	options := first.options(t, again)
	options.From, options.Method = source, MethodHardLink
	summary, err := Import(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if summary.Copied+summary.Reflinked != 0 || summary.HardLinked == 0 {
		t.Errorf("summary %+v, want nothing but links", summary)
	}
	large := storeDir + "/" + baseName(pathB) + "/share/large"
	a, err := os.Stat(filepath.Join(source, large))
	check(t, err)
	b, err := os.Stat(filepath.Join(again, large))
	check(t, err)
	if !os.SameFile(a, b) {
		t.Errorf("%s is another file", large)
	}
	checkMetadata(t, filepath.Join(again, storeDir))
	verifyStore(t, again)

	check(t, os.Chmod(filepath.Join(source, large), 0o644))
	options.Store = filepath.Join(t.TempDir(), "third")
	_, err = Import(t.Context(), options)
	if err == nil || !strings.Contains(err.Error(), "share/large: its mode 0644 or time is not that of a file in a store\nhint: ") {
		t.Errorf("err = %v", err)
	}
	if _, err := os.Lstat(options.Store); err == nil {
		t.Error("a failed import left something")
	}
}

// Whatever the umask, files come out with a store's modes.
func TestImportWithUmask(t *testing.T) {
	c, root := newTestClosure(t), filepath.Join(t.TempDir(), "root")
	cmd := importCommand(t, c, root, "sh", "-c", `umask 077; exec "$0" "$@"`)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	checkMetadata(t, filepath.Join(root, storeDir))
}

func TestUmask(t *testing.T) {
	old := syscall.Umask(0o027)
	defer syscall.Umask(old)
	if got := umask(); got != 0o027 {
		t.Errorf("umask() = %04o, want 0027", got)
	}
}
