package gotest

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun"
	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/startcommand"
)

// Machines end with the process that started them, even when that is killed:
// testrun.Main is how.
func TestMain(m *testing.M) {
	testrun.Main()
	os.Exit(m.Run())
}

func TestGuest(t *testing.T) {
	ctx := within(t, 10*time.Minute)
	guest := boot(t)

	// Waiting for something, and running commands. Errors say what was expected,
	// of which machine, and what its console showed last.
	if err := guest.WaitForUnit(ctx, "multi-user.target", "", machine.DefaultTimeout); err != nil {
		t.Fatal(err)
	}
	kernel, err := guest.Succeed(ctx, []string{"uname --kernel-name"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if kernel != "Linux\n" {
		t.Errorf("the kernel is %q", kernel)
	}

	// A command that may fail: status, output and standard error are told apart.
	result, err := guest.Run(ctx, "echo out; echo err >&2; exit 3", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if result.Status != 3 || string(result.Stdout) != "out\n" {
		t.Errorf("status %d, output %q", result.Status, result.Stdout)
	}

	// An expectation that is not met has a type of its own, so that a test can
	// tell it from a machine that gave out.
	_, err = guest.Succeed(ctx, []string{"test -e /nonexistent"}, time.Minute)
	var unmet *machine.AssertionError
	if !errors.As(err, &unmet) {
		t.Errorf("got %v, want an expectation that is not met", err)
	}

	// Several commands at once.
	results, err := guest.Parallel(ctx, []string{"sleep 1; echo slow", "echo quick"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"slow\n", "quick\n"} {
		if got := string(results[i].Stdout); got != want {
			t.Errorf("command %d wrote %q, want %q", i, got, want)
		}
	}

	// Files of the host go in, and results come out.
	file := filepath.Join(t.TempDir(), "greeting")
	if err := os.WriteFile(file, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := guest.CopyFromHost(ctx, "", file, "/tmp/greeting"); err != nil {
		t.Fatal(err)
	}
	if err := guest.CopyFromMachine(ctx, "/tmp/greeting", "results"); err != nil {
		t.Fatal(err)
	}
	back, err := os.ReadFile(filepath.Join(guest.Machine.Dirs().Out, "results", "greeting"))
	if err != nil || string(back) != "hello\n" {
		t.Errorf("the file came back as %q (%v)", back, err)
	}

	if err := guest.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// boot opens a test with one machine, which ends with t. Its log goes to that
// of t. The machine boots when it is first needed.
func boot(t *testing.T) *machine.Guest {
	t.Helper()
	config := testrun.Config{
		Machines: []testrun.MachineConfig{
			{Name: "machine", Command: startcommand.Command{Script: startScript(t)}},
		},
		VLANs:  []int{1}, // the numbers in the node's virtualisation.vlans
		OutDir: t.TempDir(),
	}
	vms, err := testrun.Open(t.Context(), config, testrun.Options{Log: t.Output(), LogLevel: event.Info})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			vms.Fail(errors.New(t.Name() + " failed"))
		}
		if err := vms.Close(); err != nil {
			t.Error(err)
		}
	})
	guest, err := vms.Machine("machine")
	if err != nil {
		t.Fatal(err)
	}
	return guest
}

// startScript returns the script that starts the guest: NIXOS_TEST_START_SCRIPT,
// or what Nix builds from the attribute NIXOS_TEST_FLAKE.
func startScript(t *testing.T) string {
	t.Helper()
	if script := os.Getenv("NIXOS_TEST_START_SCRIPT"); script != "" {
		return script
	}
	attribute := os.Getenv("NIXOS_TEST_FLAKE")
	if attribute == "" {
		const reason = "neither NIXOS_TEST_START_SCRIPT nor NIXOS_TEST_FLAKE is set"
		if os.Getenv("CI") != "" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	build := exec.CommandContext(t.Context(), "nix", append([]string{"build", "--no-link", "--json"}, strings.Fields(attribute)...)...)
	build.Stderr = t.Output()
	out, err := build.Output()
	var built []struct{ Outputs struct{ Out string } }
	if err == nil {
		err = json.Unmarshal(out, &built)
	}
	if err != nil || len(built) != 1 {
		t.Fatalf("building %s: %d derivations, %v", attribute, len(built), err)
	}
	scripts, err := filepath.Glob(filepath.Join(built[0].Outputs.Out, "bin", "run-*-vm"))
	if err != nil || len(scripts) != 1 {
		t.Fatalf("%s has start scripts %q, want one (%v)", attribute, scripts, err)
	}
	return scripts[0]
}

// within limits all operations of a test.
func within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}
