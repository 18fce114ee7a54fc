package warm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// wakeCompiler is what has made wake.x86_64.
const wakeCompiler = "gcc (Debian 12.2.0-14+deb12u1) 12.2.0"

// The program that is committed is what its source says.
func TestWakeProgram(t *testing.T) {
	version, err := exec.CommandContext(t.Context(), "gcc", "--version").Output()
	if line, _, _ := strings.Cut(string(version), "\n"); err != nil || line != wakeCompiler {
		if os.Getenv("CI") != "" {
			t.Fatalf("the compiler is %q, not %q: %v\nhint: run wake/build.sh and look at what it changes", line, wakeCompiler, err)
		}
		t.Skipf("the compiler is %q, not %q: %v", line, wakeCompiler, err)
	}
	made := filepath.Join(t.TempDir(), "wake")
	if out, err := exec.CommandContext(t.Context(), "sh", "wake/build.sh", made).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(program, wakeProgram) {
		t.Error("wake.x86_64 is not what wake.c gives; run wake/build.sh")
	}
}
