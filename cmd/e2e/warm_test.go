package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWarmChanges says what changes the derivations of a test's states.
func TestWarmChanges(t *testing.T) {
	// Whether the state is the same.
	want := map[string]bool{
		"script": true, "report": true, "name": true,
		// What the script names is in the machine's store.
		"named": false, "readyPoint": false, "machine": false,
		// Whether it has any.
		"interactive": false, "off": false,
	}
	eachNix(t, func(t *testing.T, bin string) {
		n := nixAt(t, bin)
		var got map[string]bool
		n.eval(t, framework, "warmChanges", &got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if log := n.evalError(t, framework, "badReadyPoint"); !strings.Contains(log, "`prebuild.warm.readyPoint': a definition is not of type string matching") {
			t.Error(log)
		}
	})
}

// TestWarmDerivation has Nix boot machines in its sandbox, and tests start from what
// came of it: in the sandbox, and outside.
func TestWarmDerivation(t *testing.T) {
	eachNix(t, func(t *testing.T, bin string) {
		n := nixAt(t, bin)
		state, log, err := n.build(t, framework, "runs.warm.warmStates.machine")
		if err != nil || !strings.Contains(log, "saved its state in ") {
			t.Fatalf("%v\n%s", err, log)
		}
		startedWarm(t, n, "runs.warm", "the script ran", 1)
		if log := startedWarm(t, n, "runs.warmEdited", "the edited script ran", 1); strings.Contains(log, "saved its state in ") || strings.Contains(log, "vm-warm-machine.drv") {
			t.Errorf("another script has the machine booted again:\n%s", log)
		}
		if bin != oldNix {
			return // its store is not where a driver outside looks for it
		}
		if _, log, err := n.build(t, framework, "runs.unsavable"); err == nil ||
			!strings.Contains(log, `machine "machine": starting: it cannot be saved: its /nix/store is a share (9p) of the host's`) || strings.Contains(log, "connected to guest root shell") {
			t.Errorf("a machine that cannot be saved: %v\n%s", err, log)
		}
		startedWarm(t, n, "runs.warmPair", "the script ran", 2)
		t.Run("outside", func(t *testing.T) { warmOutside(t, n, state) })
	})
}

// startedWarm builds a test whose machines are to start warm, and returns the log.
func startedWarm(t *testing.T, n nix, attribute, said string, machines int) string {
	t.Helper()
	_, log, err := n.build(t, framework, attribute)
	if err != nil {
		t.Fatalf("%s: %v\n%s", attribute, err, log)
	}
	for text, want := range map[string]int{said: 1, "unpacked its state from /nix/store/": machines, "started warm, from the state of ": machines, "starts cold": 0} {
		// The script is in the log, too.
		if got := strings.Count(log, text); got < want || want == 0 && got > 0 {
			t.Errorf("%s: %q is there %d times, want %d:\n%s", attribute, text, got, want, log)
		}
	}
	return log
}

// warmOutside runs the driver as people do.
func warmOutside(t *testing.T, n nix, state string) {
	driver, log, err := n.build(t, framework, "runs.warm.driver")
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	cache := t.TempDir()
	run := func(t *testing.T, cache string, args ...string) string {
		t.Helper()
		dir, err := os.MkdirTemp("", "e2e")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		cmd := exec.CommandContext(t.Context(), driver+"/bin/nixos-test-driver", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "XDG_CACHE_HOME="+cache,
			// With it, machines that boot have a window.
			"DISPLAY=:99")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "the script ran") {
			t.Errorf("%v\n%s", err, out)
		}
		return string(out)
	}
	const unpacked, warm = "unpacked its state from /nix/store/", "started warm, from the state of "
	if log := run(t, cache); !strings.Contains(log, unpacked) || !strings.Contains(log, warm) {
		t.Errorf("the first run:\n%s", log)
	}
	if log := run(t, cache, "--log-level", "debug"); strings.Contains(log, "unpacked") || !strings.Contains(log, warm) {
		t.Errorf("the second run:\n%s", log)
	}
	if log := run(t, cache, "--warm", "off"); strings.Contains(log, warm) {
		t.Errorf("with --warm off:\n%s", log)
	}

	// Two at once, of which none can have the other's half.
	both := t.TempDir()
	logs := make([]string, 2)
	var wg sync.WaitGroup
	for i := range logs {
		wg.Go(func() { logs[i] = run(t, both) })
	}
	wg.Wait()
	if strings.Count(logs[0]+logs[1], warm) < 2 {
		t.Errorf("two at once:\n%s\n%s", logs[0], logs[1])
	}

	// What is damaged is a line, and a boot.
	damaged := t.TempDir()
	if err := os.CopyFS(damaged, os.DirFS(state)); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(damaged + "/machine-*/ram.zst")
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	ram, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	ram[len(ram)/2] ^= 1
	if err := os.Chmod(found[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(found[0], ram, 0o600); err != nil {
		t.Fatal(err)
	}
	log = run(t, t.TempDir(), "--warm-from", damaged)
	if !strings.Contains(log, "starts cold: "+found[0]+" is damaged: frame ") || strings.Contains(log, warm) {
		t.Errorf("from a damaged state:\n%s", log)
	}

	// The packed states of Nix are those of vm-prebuild warm.
	var pulled []struct{ Key string }
	cmd := exec.CommandContext(t.Context(), tool(t, "vm-prebuild"), "warm", "pull", "--json", "--warm-dir", t.TempDir(), state)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &pulled); err != nil || len(pulled) != 1 || !strings.HasPrefix(pulled[0].Key, "machine-") {
		t.Errorf("%v %s", err, out)
	}
}

// TestWarmPush saves machines without Nix, and has a test start from there in another
// cache, as on another host.
func TestWarmPush(t *testing.T) {
	n := nixAt(t, oldNix)
	driver, log, err := n.build(t, framework, "runs.warmPair.driver")
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	wrapper, err := os.ReadFile(driver + "/bin/nixos-test-driver")
	if err != nil {
		t.Fatal(err)
	}
	config := regexp.MustCompile(`/nix/store/[^ '"]*-driver-configuration\.json`).Find(wrapper)
	here, there, share := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "share")
	build := func(args ...string) (saved []struct {
		Machine string
		There   bool
	}) {
		t.Helper()
		args = append([]string{"warm", "build", "--json", "--warm-dir", here, "--accel", "tcg", "--config", string(config)}, args...)
		cmd := exec.CommandContext(t.Context(), tool(t, "vm-prebuild"), args...)
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, &said)
		}
		if err := json.Unmarshal(out, &saved); err != nil {
			t.Fatal(err)
		}
		return saved
	}
	if saved := build("client"); len(saved) != 1 || saved[0].Machine != "client" || saved[0].There {
		t.Errorf("%+v", saved)
	}
	if saved := build(); len(saved) != 2 || !saved[0].There || saved[1].There {
		t.Errorf("%+v", saved)
	}
	if out, err := command(t, ".", tool(t, "vm-prebuild"), "warm", "push", "--warm-dir", here, share); err != nil || strings.Count(out, ": packed ") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
	runtime, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(runtime)
	cmd := exec.CommandContext(t.Context(), driver+"/bin/nixos-test-driver",
		"-o", t.TempDir(), "--warm", "require", "--warm-ready", "shell", "--warm-dir", there, "--warm-from", share)
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+runtime)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "unpacked its state from "+share) != 2 || strings.Count(string(out), "started warm, ") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestWarmSize says what packed states take, of both guests.
func TestWarmSize(t *testing.T) {
	n := nixAt(t, oldNix)
	for machine, attribute := range map[string]string{
		"mini":    "runs.warmPair.warmStates.client",
		"systemd": "runs.warmPair.warmStates.server",
	} {
		state, log, err := n.build(t, framework, attribute)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		dir := t.TempDir()
		out, err := exec.CommandContext(t.Context(), tool(t, "vm-prebuild"), "warm", "pull", "--warm-dir", dir, state).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		touched, packed := onDisk(t, filepath.Join(dir, "*", "ram")), onDisk(t, filepath.Join(state, "*", "*"))
		if packed > touched*40/100 {
			t.Errorf("%s: packed %d bytes, of %d bytes of touched memory", machine, packed, touched)
		}
		t.Logf("%s: %d MiB of touched memory packed into %d MiB (%d %%); %s", machine, touched>>20, packed>>20, packed*100/touched, out)
	}
}

// onDisk is what the blocks of files take.
func onDisk(t *testing.T, pattern string) (sum int64) {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatal(pattern, err)
	}
	for _, path := range found {
		out := nixOutput(t, ".", "du", "-B1", path)
		var bytes int64
		if err := json.Unmarshal([]byte(strings.Fields(out)[0]), &bytes); err != nil {
			t.Fatal(err)
		}
		sum += bytes
	}
	return sum
}
