package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// result builds an attribute of testdata/nix/framework.nix that is built though its
// test fails, and returns a reader of the files of its output.
func (n nix) result(t *testing.T, attribute string) (read func(name string) string) {
	t.Helper()
	out, log, err := n.build(t, framework, attribute)
	if err != nil {
		t.Fatalf("%s: %v\n%s", attribute, err, log)
	}
	return func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Errorf("%s: %v", attribute, err)
		}
		return string(text)
	}
}

// TestFrameworkRuns has Nix run tests in its sandbox.
func TestFrameworkRuns(t *testing.T) {
	eachNix(t, func(t *testing.T, bin string) {
		n := nixAt(t, bin)
		for _, attribute := range []string{"runs.pass", "runs.overlaid", "runs.starlark", "runs.stored"} {
			t.Run(attribute, func(t *testing.T) {
				out, log, err := n.build(t, framework, attribute)
				if err != nil {
					t.Fatalf("%v\n%s", err, log)
				}
				if !strings.Contains(log, "the script ran") {
					t.Errorf("the test did not run:\n%s", log)
				}
				if attribute == "runs.starlark" { // which keeps what a failure leaves
					if files, err := os.ReadDir(out + "/nix-support"); err != nil || len(files) != 1 || files[0].Name() != "hydra-build-products" {
						t.Errorf("nix-support of a test that passed has %v %v", files, err)
					}
				}
			})
		}
		// TestSandbox has a failure that nobody expects.
		t.Run("fails as expected", func(t *testing.T) {
			read := n.result(t, "runs.expectedFailure")
			if code := read("testBuildFailure.exit"); code != "1\n" {
				t.Errorf("exit code %q", code)
			}
			if log := read("testBuildFailure.log"); !strings.Contains(log, `machine.succeed("echo it is broken >&2; false")  # this line fails`) {
				t.Error(log)
			}
			if png := read("result/before.png"); !strings.HasPrefix(png, "\x89PNG") {
				t.Errorf("the screenshot is %.20q", png)
			}
		})
		t.Run("fails and is kept", func(t *testing.T) { n.checkKept(t) })
	})
}

// checkKept reads what prebuild.report.keepOnFailure keeps of a test that fails.
func (n nix) checkKept(t *testing.T) {
	t.Helper()
	read := n.result(t, "runs.kept")
	if code := read("nix-support/failed"); code != "1\n" {
		t.Errorf("failed holds %q, want the exit code 1", code)
	}
	for name, want := range map[string]string{
		"report.html":                        "<title>Failed:",
		"nixos-test-run-failure/report.html": "# this line fails",
		"junit.xml":                          `failures="1"`,
		"before.png":                         "\x89PNG",
	} {
		if got := read(name); !strings.Contains(got, want) {
			t.Errorf("%s lacks %q", name, want)
		}
	}
	// What Hydra shows is there.
	var kinds []string
	for line := range strings.Lines(read("nix-support/hydra-build-products")) {
		m := regexp.MustCompile(`^(\w+ \w+) "?(/nix/store/[^ "]+)"?( report\.html)?\n$`).FindStringSubmatch(line)
		if m == nil {
			t.Errorf("Hydra does not understand %q", line)
			continue
		}
		kinds = append(kinds, m[1])
		if _, err := os.Stat(filepath.Join(n.root+m[2], strings.TrimSpace(m[3]))); err != nil {
			t.Error(err)
		}
	}
	if got, want := strings.Join(kinds, ", "), "report testlog, report testlog, file xml, file png, file png"; got != want {
		t.Errorf("the products are %s, want %s", got, want)
	}
}

// TestFrameworkDebugHook attaches to a test that is held in Nix's sandbox, mends its
// machine, lets it go on, and attaches again when it fails.
func TestFrameworkDebugHook(t *testing.T) {
	eachNix(t, func(t *testing.T, bin string) {
		n := nixAt(t, bin)
		// What the test needs is built before its time counts.
		if _, log, err := n.build(t, framework, "runs.debug.driver"); err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		cmd := n.command(t, "nix-build", framework, "--no-out-link", "-A", "runs.debug")
		log, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if cmd.ProcessState == nil {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		}()
		defer time.AfterFunc(booting+time.Minute, func() { _ = cmd.Process.Kill() }).Stop()

		held := regexp.MustCompile(`Breakpoint reached, run 'sudo (/nix/store/\S+) (\d{7})'`)
		var all strings.Builder
		stops := 0
		for lines := bufio.NewScanner(log); lines.Scan(); {
			all.WriteString(lines.Text() + "\n")
			m := held.FindStringSubmatch(lines.Text())
			if m == nil {
				continue
			}
			stops++
			typed := `machine.succeed("touch /root/fixed")`
			if stops == 2 {
				typed = "where"
			}
			out, err := command(t, ".", n.root+m[1], m[2], "/usr/bin/python3", "-c", debugger, typed)
			if err != nil {
				t.Errorf("attaching: %v\n%s", err, out)
			}
			if stops == 2 && !strings.Contains(out, `machine.fail("true")`) {
				t.Errorf("the debugger said %s", out)
			}
		}
		if err := cmd.Wait(); err == nil || stops != 2 ||
			!strings.Contains(all.String(), "the script went on") ||
			!strings.Contains(all.String(), "command `true` unexpectedly succeeded") {
			t.Errorf("%v after %d stops:\n%s", err, stops, &all)
		}
	})
}

// debugger types its argument to the debugger of a test that is held, and has it go on.
const debugger = `
import socket, sys
s = socket.create_connection(("127.0.0.1", 4444), timeout=60)
def prompt():
    text = b""
    while not text.endswith(b"(pdb) "):
        more = s.recv(4096)
        if not more: sys.exit("the debugger has left: %r" % text)
        text += more
    return text.decode()
prompt()
s.sendall(sys.argv[1].encode() + b"\n")
print(prompt())
s.sendall(b"c\n")
while s.recv(4096): pass
`

// TestFrameworkInteractive runs the driver for people, which has what belongs to
// `interactive`.
func TestFrameworkInteractive(t *testing.T) {
	need(t, binEnv)
	n := nixAt(t, oldNix)
	driver, log, err := n.build(t, framework, "runs.interactive")
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	run := func(input string, args ...string) (string, error) {
		t.Helper()
		dir, err := os.MkdirTemp("", "e2e")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		cmd := exec.CommandContext(t.Context(), driver+"/bin/nixos-test-driver", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("print('by', machine.succeed('echo $BY'))\ntest_script()\n")
	if err != nil || !strings.Contains(out, "by hand\n") || !strings.Contains(out, "the script ran") {
		t.Errorf("%v\n%s", err, out)
	}
	// As in nixpkgs, a flag of who starts it takes that back.
	out, err = run("", "--no-interactive")
	if err != nil || !strings.Contains(out, "test script finished in ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestOldFramework has Nix run a test of nixpkgs 24.05, of which our module makes
// the derivation as well.
func TestOldFramework(t *testing.T) {
	eachNix(t, func(t *testing.T, bin string) {
		n := nixAt(t, bin)
		out, log, err := n.build(t, "generations.nix", `"24.05".run`)
		if err != nil {
			t.Fatalf("%v\n%s", err, log)
		}
		if text, err := os.ReadFile(out + "/report.html"); err != nil || !strings.Contains(string(text), "<title>Passed:") {
			t.Errorf("the page: %v\n%s", err, log)
		}
	})
}

// TestAccel says what machines run under.
func TestAccel(t *testing.T) {
	r := start(t, configOf(t, "vm-help"), `machine.succeed("true")`, "--accel", "tcg", "--jsonl", "log.jsonl")
	code, log := r.end(booting)
	events, err := os.ReadFile(filepath.Join(r.out, "log.jsonl"))
	if code != 0 || err != nil || !strings.Contains(string(events), `"accel=tcg"`) || strings.Contains(log, "KVM cannot be used") {
		t.Errorf("exit code %d, %v: want TCG without a word about KVM", code, err)
	}
	r = start(t, configOf(t, "vm-help"), `machine.succeed("true")`, "--accel", "kvm")
	code, log = r.end(booting)
	refused := code == 3 && strings.Contains(log, `machine "machine": starting: KVM cannot be used, and the test insists on it: `)
	if code != 0 && !refused {
		t.Errorf("exit code %d: want a pass, or a word about KVM", code)
	}
}
