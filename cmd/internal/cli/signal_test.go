package cli_test

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is also the program that TestSignal interrupts.
func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_MAIN") != "" {
		app.Main(&grammar{})
	}
	os.Exit(m.Run())
}

func TestSignal(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "plan", "wait")
	cmd.Env = append(os.Environ(), "CLI_TEST_MAIN=1")
	cmd.WaitDelay = 10 * time.Second
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 128+15 {
		t.Errorf("exit %d (%v), want 143", code, cmd.ProcessState)
	}
	if got := stderr.String(); got != "tool: interrupted by signal: terminated\n" {
		t.Errorf("stderr %q", got)
	}
}
