package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A Starlark script drives a real guest, and needs no Python.
func TestStarlarkScript(t *testing.T) {
	r := start(t, configOf(t, "vm-help"), `
start_all()
machine.wait_for_unit("multi-user.target")

def kernel():
    assert_equal(machine.succeed("uname -s"), "Linux\n")
    status, output = machine.execute("echo out; exit 3")
    assert_equal((status, output), (3, "out\n"))

subtest("kernel", kernel)

def files():
    machine.succeed("(sleep 0.5; echo hello > /tmp/late) >/dev/null 2>&1 &")
    machine.wait_for_file("/tmp/late", timeout = 60)
    assert_in("hello", machine.wait_until_succeeds("cat /tmp/late"))
    machine.copy_from_machine("/tmp/late")

subtest("files", files)

# The outputs of commands that run at once, in order.
assert_equal(machine.parallel("sleep 0.3; echo one", "echo two", timeout = 60), ["one\n", "two\n"])
assert_equal(succeed_all("echo $((6 * 7))"), {"machine": "42\n"})
value, error = catch(lambda: machine.succeed("exit 4"))
assert_equal(error, "command `+"`exit 4`"+` failed (exit code 4)")

alive = polling_condition(lambda: "Linux" in machine.succeed("uname -s"), interval = 0.1)
alive.during(lambda: machine.succeed("sleep 0.3"))
retry(lambda last: machine.execute("test -e /tmp/late")[0] == 0, timeout = 60)
print("the script's end")
machine.shutdown()
`, "--language", "starlark")
	code, log := r.end(booting)
	if code != 0 || !strings.Contains(log, "the script's end") || !strings.Contains(log, "subtest: kernel") {
		t.Errorf("exit code %d", code)
	}
	if text, err := os.ReadFile(r.out + "/late"); err != nil || string(text) != "hello\n" {
		t.Errorf("copied file: %q %v", text, err)
	}
	r.nothingLeft(5 * time.Second)
}

// A script that fails says where, as a Python script does.
func TestStarlarkFailure(t *testing.T) {
	r := start(t, configOf(t, "vm-help"), `
def check():
    machine.succeed("echo why; false")

subtest("fails", check)
`, "--language", "starlark")
	code, log := r.end(booting)
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	for _, line := range []string{
		"!!! Traceback (most recent call last):",
		`!!!   File "script.py", line 5, in <toplevel>`,
		`!!!     subtest("fails", check)`,
		`!!!   File "script.py", line 3, in check`,
		"!!! RequestedAssertionFailed: command `echo why; false` failed (exit code 1)",
	} {
		if !strings.Contains(log, line+"\n") {
			t.Errorf("the log lacks %s", line)
		}
	}
	r.nothingLeft(5 * time.Second)
}

// The example of examples/gotest works as it stands.
func TestGoAPIExample(t *testing.T) {
	vms, ok := configOf(t, "vm-help")["vms"].(map[string]any)
	if !ok {
		t.Fatal("no vms in the configuration")
	}
	machine, ok := vms["machine"].(map[string]any)
	if !ok {
		t.Fatalf("no machine in %v", vms)
	}
	dir, err := os.MkdirTemp("", "e2e") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "../../examples/gotest")
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "NIXOS_TEST_START_SCRIPT="+machine["start_script"].(string))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestGuest") {
		t.Errorf("%v\n%s", err, out)
	}
}
