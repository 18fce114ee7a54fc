package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// only returns the configuration of vm-help with machine "m" alone, whose start
// script has the given text.
func only(t *testing.T, text string) config {
	t.Helper()
	c := configOf(t, "vm-help")
	c["vms"] = map[string]any{"m": map[string]any{"name": "m", "start_script": startScript(t, "m", text)}}
	return c
}

// TestGuestWithoutABackdoor has a guest that boots to a shell on its screen and
// nothing more.
func TestGuestWithoutABackdoor(t *testing.T) {
	t.Setenv("QEMU_KERNEL_PARAMS", "init=/bin/sh")
	const limit = 15 * time.Second
	t.Run("boot time-out", func(t *testing.T) {
		r := start(t, configOf(t, "vm-help"), "machine.succeed('true')", "--boot-timeout", limit.String())
		r.qemu()
		begin := time.Now()
		code, log := r.end(limit + 20*time.Second)
		if took := time.Since(begin); code != 3 || took < limit-time.Second {
			t.Errorf("exit code %d after %v", code, took)
		}
		for _, want := range []string{`machine "machine": `, "no root shell within 15s", "!!! hint: does the guest run backdoor.service?", `last lines of the console of "machine":`, "Linux version"} {
			if !strings.Contains(log, want) {
				t.Errorf("the log lacks %q", want)
			}
		}
		r.nothingLeft(time.Second)
		r.tidy()
	})
	t.Run("global time-out", func(t *testing.T) {
		c := configOf(t, "vm-help")
		c["global_timeout"] = 5
		r := start(t, c, "machine.succeed('true')")
		begin := time.Now()
		code, _ := r.end(booting)
		if took := time.Since(begin); code != 124 || took > 25*time.Second {
			t.Errorf("exit code %d after %v", code, took)
		}
		r.nothingLeft(time.Second)
		r.tidy()
	})
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			r := start(t, configOf(t, "vm-help"), "machine.succeed('true')")
			r.await("waiting for the VM to finish booting", time.Minute)
			if err := r.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			_, _ = r.end(10 * time.Second)
			r.nothingLeft(time.Second)
			r.tidy()
		})
	}
}

// TestStartScriptStays has start scripts that do not become QEMU but start it,
// and more.
func TestStartScriptStays(t *testing.T) {
	original, err := os.ReadFile(configOf(t, "vm-help")["vms"].(map[string]any)["machine"].(map[string]any)["start_script"].(string))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(original), "\nexec ", "\nsleep 600 &\n", 1) + "\n"
	const script = "m.succeed('true')\nprint('READY', flush=True)\nm.succeed('sleep 600')"
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			r := start(t, only(t, text), script)
			r.await("^READY$", booting)
			if err := r.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			_, _ = r.end(10 * time.Second)
			r.nothingLeft(time.Second)
			r.tidy()
		})
	}
}

// TestStartScriptThatFails has start scripts that never start a machine. What
// they print is in the error.
func TestStartScriptThatFails(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"prints an error", "#!/bin/sh\necho cannot find the kernel >&2\nexit 4\n", []string{"exit code 4", "  cannot find the kernel"}},
		{"prints on standard output", "#!/bin/sh\necho cannot find the disk\nexit 5\n", []string{"exit code 5", "  cannot find the disk"}},
		{"ends well", "#!/bin/sh\necho nothing to do\n", []string{"exit code 0", "  nothing to do"}},
		{"is killed", "#!/bin/sh\necho too big\nkill -KILL $$\n", []string{"signal: killed", "  too big"}},
		{"leaves a process", "#!/bin/sh\nsleep 600 &\necho no luck\nexit 6\n", []string{"exit code 6", "  no luck"}},
		{"prints a lot", "#!/bin/sh\nyes line | head -n 100000\necho the end\nexit 7\n", []string{"exit code 7", "  the end"}},
		{"has no interpreter", "#!/nonexistent/sh\n", []string{"no such file or directory"}},
		{"gives QEMU a wrong option", "#!/bin/sh\nexec qemu-system-x86_64 -no-such-option\n", []string{"exit code 1", "-no-such-option"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := start(t, only(t, test.text), "m.succeed('true')")
			code, log := r.end(20 * time.Second)
			if code != 3 {
				t.Errorf("exit code %d, want 3", code)
			}
			failures := account(log)
			for _, want := range append(test.want, `machine "m": `) {
				if !strings.Contains(failures, want) {
					t.Errorf("the failure lacks %q:\n%s", want, failures)
				}
			}
			r.nothingLeft(time.Second)
			r.tidy()
		})
	}
}

// account is what a log tells of the failure of the test.
func account(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if rest, ok := strings.CutPrefix(line, "!!! "); ok {
			b.WriteString(rest)
		}
	}
	return b.String()
}

// TestMegabytesThroughTheShell has commands and outputs that are longer than any
// argument of a process can be.
func TestMegabytesThroughTheShell(t *testing.T) {
	r := start(t, configOf(t, "vm-help"), `
text = "0123456789abcdef" * (1 << 16)  # 1 MiB
machine.succeed(f"printf %s {text} >/tmp/file")
assert machine.succeed("wc -c </tmp/file").strip() == str(1 << 20)
assert machine.succeed("cat /tmp/file") == text
assert machine.wait_until_succeeds("cat /tmp/file", timeout=120) == text

text = text[: 200 << 10]  # still more than one argument can have
assert machine.succeed(f": {text}; echo done") == "done\n"
assert machine.fail(f": {text}; false") == ""
status, output = machine.execute(f"cat <<'END'\n{text}\nEND\nexit 7")
assert (status, output) == (7, text + "\n"), (status, len(output))
assert machine.wait_until_succeeds(f"echo {text}", timeout=120) == text + "\n"
`)
	if code, _ := r.end(3 * booting); code != 0 {
		t.Errorf("exit code %d", code)
	}
	r.nothingLeft(time.Second)
}

// TestWrongScripts has mistakes of authors. Each is told once, with its line.
func TestWrongScripts(t *testing.T) {
	tests := []struct {
		name, script string
		code, line   int
		want         string
	}{
		{"syntax", "x = 1\nif x\n", 2, 2, "SyntaxError: expected ':'"},
		{"unknown name", "x = 1\nfoo(x)\n", 1, 2, "NameError: name 'foo' is not defined"},
		{"unknown module", "import nonexistent\n", 1, 1, "ModuleNotFoundError: No module named 'nonexistent'"},
		{"unknown method", "\n\nm.suceed('true')\n", 1, 3, "has no attribute 'suceed'"},
		{"unknown argument", "m.succeed('true', tiemout=5)\n", 1, 1, "unexpected keyword argument 'tiemout'"},
		{"missing argument", "m.wait_for_unit()\n", 1, 1, "missing 1 required positional argument: 'unit'"},
		{"exception", "def f():\n    return 1 / 0\n\nf()\n", 1, 4, "ZeroDivisionError: division by zero"},
		{"assert", "assert 1 == 2, 'numbers'\n", 1, 1, "AssertionError: numbers"},
		{"unittest", "t.assertEqual(1, 2, 'numbers')\n", 1, 1, "RequestedAssertionFailed: 1 != 2 : numbers"},
		{"in a subtest", "with subtest('one'):\n    raise ValueError('odd')\n", 1, 2, "ValueError: odd"},
		{"chained", "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('outer') from e\n", 1, 4, "ValueError: outer"},
		{"endless recursion", "def f():\n    f()\n\nf()\n", 1, 4, "RecursionError: maximum recursion depth exceeded"},
		{"sys.exit", "import sys\nsys.exit('enough of it')\n", 1, 0, "enough of it"},
	}
	mute := "#!/bin/sh\nexec qemu-system-x86_64 -machine accel=kvm:tcg -m 32 \"$@\"\n"
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := start(t, only(t, mute), test.script)
			code, log := r.end(time.Minute)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			told := account(log)
			if got := strings.Count(told, test.want); got != 1 {
				t.Errorf("%q is told %d times:\n%s", test.want, got, told)
			}
			if line := fmt.Sprintf("line %d", test.line); test.line > 0 && !strings.Contains(told, line) {
				t.Errorf("no %q in\n%s", line, told)
			}
			if got := strings.Count(log, "nixos-test-run: "); got != 1 {
				t.Errorf("%d verdicts", got)
			}
			r.nothingLeft(time.Second)
			r.tidy()
		})
	}
}
