package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// benchCommand is cmd/bench, working in an empty directory.
func benchCommand(t *testing.T, args ...string) (cmd *exec.Cmd, dir string) {
	t.Helper()
	bin := need(t, binEnv)
	var missing string
	if os.Geteuid() != 0 {
		missing = "mounting file systems needs root"
	}
	for _, name := range []string{"nix-store", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = err.Error()
		}
	}
	if missing != "" {
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	program := buildBench(t)
	dir = t.TempDir()
	// Users without privileges work in it, too.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), program, append(args, "--runs", "1", "--bin", bin)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	return cmd, dir
}

// buildBench makes the program, which is not among the tools of "make build".
func buildBench(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "bench")
	if out, err := command(t, ".", "go", "build", "-o", program, "../bench"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// TestBench does every job of the benchmarks with small closures: both sides
// must do it, whatever it takes.
func TestBench(t *testing.T) {
	cmd, dir := benchCommand(t, "run", "--scale", "0.02", "--json")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var report struct {
		Results []struct {
			Line  string
			Ratio float64
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Results) < 17 {
		t.Errorf("%d lines, want 17", len(report.Results))
	}
	for _, line := range report.Results {
		t.Logf("%-45s %5.1f ×", line.Line, line.Ratio)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestBenchScale draws the growth of costs.
func TestBenchScale(t *testing.T) {
	svg := filepath.Join(t.TempDir(), "plot.svg")
	cmd, _ := benchCommand(t, "scale", "--counts", "20,200", "--svg", svg)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if text, err := os.ReadFile(svg); err != nil || !strings.Contains(string(text), "<polyline") {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestBenchDriver measures the test driver, shortly: both sides must do each job,
// and the figures must be such as can be true.
func TestBenchDriver(t *testing.T) {
	bin, manifest := need(t, binEnv), need(t, manifestEnv)
	cmd := exec.CommandContext(t.Context(), buildBench(t), "driver", "--bin", bin, "--manifest", manifest,
		"--runs", "1", "--scale", "0.2", "--jobs", "played|(waits|copies) mini", "--json")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var rows []struct {
		What, Guest, Unit string
		Theirs, Ours      float64
	}
	if err := json.Unmarshal(out, &rows); err != nil {
		t.Fatal(err)
	}
	const want = 15
	if len(rows) != want {
		t.Errorf("%d figures, want %d", len(rows), want)
	}
	for _, row := range rows {
		t.Logf("%-40s %-8s %8.3g : %.3g %s", row.What, row.Guest, row.Theirs, row.Ours, row.Unit)
		for _, figure := range []float64{row.Theirs, row.Ours} {
			low, high := 0.0, 60e3 // ms, MiB or s
			switch row.Unit {
			case "%":
				high = 101
			case "MiB":
				low, high = 5, 500
			}
			if figure < low || figure > high {
				t.Errorf("%s, %s: %g %s cannot be", row.What, row.Guest, figure, row.Unit)
			}
		}
	}
}

// TestBenchKilled kills a benchmark: its mounts and loop devices go with it.
func TestBenchKilled(t *testing.T) {
	cmd, dir := benchCommand(t, "run", "--scale", "0.02", "--lines", "^register .* derivations")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stderr).ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	deadline := time.Now().Add(time.Minute)
	for len(loopDevices(t, dir)) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("loop devices are left: %q", loopDevices(t, dir))
		}
		time.Sleep(20 * time.Millisecond)
	}
	entries, err := filepath.Glob(filepath.Join(dir, "*/*"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %q, %v", entries, err)
	}
}

// loopDevices are the loop devices whose files lie below dir.
func loopDevices(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		// It vanishes with its device.
		if text, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(text), dir) {
			found = append(found, file)
		}
	}
	return found
}
