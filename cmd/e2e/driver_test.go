// Package e2e holds black-box tests of the commands: the static binaries, real
// guests under real QEMU, and real Nix. "make test" prepares what they need
// and runs them.
package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vm-prebuild/testrun/suite"
)

// Where "make test" puts what is tested.
const (
	binEnv      = "VM_PREBUILD_BIN"      // directory of the static binaries
	manifestEnv = "VM_PREBUILD_MANIFEST" // of the prebuilt example tests
)

// need returns the value of an environment variable that "make test" sets.
func need(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not set", name)
		}
		t.Skipf("%s is not set; make test does", name)
	}
	return v
}

func tool(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(need(t, binEnv), name)
}

// config is a driver configuration, loose enough to be changed.
type config map[string]any

// configOf returns the configuration of a prebuilt test: the file that its
// wrapper passes.
func configOf(t *testing.T, test string) config {
	t.Helper()
	m, err := suite.ReadManifest(need(t, manifestEnv))
	if err != nil {
		t.Fatal(err)
	}
	wrapper, err := os.ReadFile(m.Tests[test].Driver)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`/nix/store/[^ '"]*\.json`).Find(wrapper)
	if found == nil {
		t.Fatalf("no configuration in\n%s", wrapper)
	}
	text, err := os.ReadFile(string(found))
	if err != nil {
		t.Fatal(err)
	}
	var c config
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// run is one run of nixos-test-run.
type run struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   string // directory for results
	tag   string // in the environment of all its processes
	log   strings.Builder
	lines chan string
}

// start runs script against the machines of c.
func start(t *testing.T, c config, script string, args ...string) *run {
	t.Helper()
	// A socket's path is short, and t.TempDir's is not.
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return startIn(t, dir, nil, c, script, args...)
}

// startIn is start with a runtime directory that outlives the run, and more
// environment variables.
func startIn(t *testing.T, dir string, env []string, c config, script string, args ...string) *run {
	t.Helper()
	c["test_script"] = filepath.Join(dir, "script.py")
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"script.py": script, "config.json": string(text)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &run{t: t, out: filepath.Join(dir, "out"), tag: "VM_PREBUILD_E2E=" + dir, lines: make(chan string, 100000)}
	if err := os.MkdirAll(r.out, 0o700); err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command(tool(t, "nixos-test-run"), append([]string{"--config", filepath.Join(dir, "config.json"), "-o", r.out}, args...)...)
	r.cmd.Env = append(append(os.Environ(), r.tag, "XDG_RUNTIME_DIR="+dir), env...)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Stdout, r.cmd.Stderr = writer, writer
	err = r.cmd.Start()
	writer.Close()
	if err != nil {
		t.Fatal(err)
	}
	go r.read(reader)
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		if t.Failed() {
			t.Logf("log of the driver:\n%s", r.log.String())
		}
	})
	return r
}

func (r *run) read(out io.ReadCloser) {
	defer out.Close()
	defer close(r.lines)
	s := bufio.NewScanner(out)
	s.Buffer(nil, 64<<20) // commands are logged whole
	for s.Scan() {
		r.lines <- s.Text()
	}
}

// await returns the submatches of the first line that matches pattern.
func (r *run) await(pattern string, limit time.Duration) []string {
	r.t.Helper()
	re := regexp.MustCompile(pattern)
	timeout := time.After(limit)
	for {
		select {
		case line, ok := <-r.lines:
			if !ok {
				r.t.Fatalf("the driver ended without a line that matches %s", pattern)
			}
			r.log.WriteString(line + "\n")
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
		case <-timeout:
			r.t.Fatalf("no line matches %s within %v", pattern, limit)
		}
	}
}

// end waits for the driver to end and returns its exit code and all of its log.
func (r *run) end(limit time.Duration) (int, string) {
	r.t.Helper()
	timeout := time.After(limit)
	for open := true; open; {
		select {
		case line, ok := <-r.lines:
			if open = ok; ok {
				r.log.WriteString(line + "\n")
			}
		case <-timeout:
			r.t.Fatalf("the driver has not ended within %v", limit)
		}
	}
	_ = r.cmd.Wait()
	return r.cmd.ProcessState.ExitCode(), r.log.String()
}

// leftovers lists processes of the run that are alive.
func (r *run) leftovers() []string {
	r.t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		r.t.Fatal(err)
	}
	var left []string
	for _, d := range dirs {
		env, err := os.ReadFile(d + "/environ")
		if err != nil || !strings.Contains(string(env), r.tag) {
			continue // ended, or a zombie: its environment is empty
		}
		cmdline, _ := os.ReadFile(d + "/cmdline")
		left = append(left, fmt.Sprintf("%s %.100q", filepath.Base(d), cmdline))
	}
	return left
}

// nothingLeft fails the test if processes of the run are alive after limit.
func (r *run) nothingLeft(limit time.Duration) {
	r.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		left := r.leftovers()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("alive %v later: %s", limit, left)
		}
		time.Sleep(10 * time.Millisecond) // there is no event for the end of a stranger
	}
}

// booting is how long a guest may take on a busy machine under TCG.
const booting = 4 * time.Minute

// ready is a script that boots a guest and says so, and then does something
// that takes long.
const ready = "machine.succeed('true')\nprint('READY', flush=True)\n"

func TestSIGKILLOfTheDriver(t *testing.T) {
	r := start(t, configOf(t, "vm-help"), ready+"machine.succeed('sleep 600')", "--vlan-backend", "vde_switch")
	r.await("^READY$", booting)
	if left := len(r.leftovers()); left < 5 {
		t.Errorf("only %d processes while running; want driver, supervisor, Python, QEMU and vde_switch", left)
	}
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
	r.nothingLeft(time.Second)
	r.tidy()
}

func TestSIGTERMOfTheDriver(t *testing.T) {
	r := start(t, configOf(t, "vm-help"), ready+"machine.succeed('sleep 600')")
	r.await("^READY$", booting)
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, _ := r.end(10 * time.Second); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d", code)
	}
	r.nothingLeft(time.Second)
	r.tidy()
}

func TestSIGKILLOfQEMU(t *testing.T) {
	r := start(t, configOf(t, "vm-help"), ready+"machine.succeed('sleep 600')")
	pid := r.qemu()
	r.await("^READY$", booting)
	r.await("must succeed: sleep 600", time.Minute)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	r.await(`!!! .*machine "machine": QEMU \(pid \d+\) ended unexpectedly: signal: killed`, time.Second)
	t.Logf("reported after %v", time.Since(killed))
	if code, _ := r.end(10 * time.Second); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	r.nothingLeft(time.Second)
	r.tidy()
}

func TestSIGSTOPOfQEMU(t *testing.T) {
	const timeout = 5 * time.Second
	r := start(t, configOf(t, "vm-help"), ready+fmt.Sprintf("machine.succeed('sleep 600', timeout=%d)", timeout/time.Second))
	pid := r.qemu()
	r.await("^READY$", booting)
	r.await("must succeed: sleep 600", time.Minute)
	begin := time.Now()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.await(`!!! .*machine "machine": QEMU \(pid \d+\) is stopped by a signal or a debugger: no answer from the guest's shell after `, timeout+10*time.Second)
	t.Logf("reported %v after the stop", time.Since(begin))
	if code, _ := r.end(10 * time.Second); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
	r.nothingLeft(time.Second)
	r.tidy()
}

// TestBusyHost has the driver stand still again and again while a guest writes:
// QEMU drops output that nobody takes, so the guest must not write it then.
func TestBusyHost(t *testing.T) {
	r := start(t, configOf(t, "vm-help"), ready+`
out = machine.succeed("head -c 3000000 /dev/zero | tr '\\0' z")
assert out == "z" * 3000000, len(out)
`)
	r.await("^READY$", booting)
	r.await("must succeed: head", time.Minute)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range 20 {
			_ = r.cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(100 * time.Millisecond) // for the guest to go on meanwhile
			_ = r.cmd.Process.Signal(syscall.SIGCONT)
			time.Sleep(20 * time.Millisecond) // for the driver to take some of it
		}
	}()
	code, _ := r.end(2 * time.Minute)
	<-ended
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// qemu returns the process of the machine that is started next.
func (r *run) qemu() int {
	r.t.Helper()
	pid, err := strconv.Atoi(r.await(`QEMU running \(pid (\d+)\)`, time.Minute)[1])
	if err != nil {
		r.t.Fatal(err)
	}
	return pid
}

func TestGlobalTimeout(t *testing.T) {
	c := configOf(t, "vm-help")
	c["global_timeout"] = 4
	r := start(t, c, "machine.succeed('sleep 600')") // however fast the machine boots
	begin := time.Now()
	code, log := r.end(30 * time.Second)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	if code != 124 || !strings.Contains(log, "the global time-out of the test was reached (4.0 seconds)") {
		t.Errorf("exit code %d, want 124 and a line that says so", code)
	}
	r.nothingLeft(time.Second)
	r.tidy()
}

// TestBadInput has what needs no guest: each ends quickly, with one clear
// error, the documented exit code, and nothing left.
func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	dies := filepath.Join(dir, "run-dies-vm")
	if err := os.WriteFile(dies, []byte("#!/bin/sh\necho no disk >&2\nexit 4\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	mute := filepath.Join(dir, "run-mute-vm")
	if err := os.WriteFile(mute, []byte("#!/bin/sh\nexec qemu-system-x86_64 -machine accel=kvm:tcg -m 32 \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	vm := func(script string) config {
		c := configOf(t, "vm-help")
		c["vms"] = map[string]any{"m": map[string]any{"name": "m", "start_script": script}}
		return c
	}
	tests := []struct {
		name   string
		config config
		script string
		code   int
		want   []string
	}{
		{"syntax error", vm(mute), "x = 1\nif x\n", 2, []string{"SyntaxError", "line 2"}},
		{"exception", vm(mute), "def f():\n    return 1 / 0\nf()\n", 1, []string{"ZeroDivisionError: division by zero", "line 2", "return 1 / 0"}},
		{"assertion", vm(mute), "t.assertEqual(1, 2, 'numbers')\n", 1, []string{"numbers"}},
		{"sys.exit", vm(mute), "import sys\nsys.exit(7)\n", 7, nil},
		{"start script exits at once", vm(dies), "m.start()\n", 3, []string{`machine "m"`, "exit code 4", "no disk"}},
		{"start script is missing", vm("/nonexistent"), "m.start()\n", 2, []string{"/nonexistent: no such file or directory", "hint: "}},
		{"no shell", vm(mute), "m.succeed('true')\n", 3, []string{`machine "m"`, "no root shell within 3s"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := start(t, test.config, test.script, "--boot-timeout", "3s")
			code, log := r.end(20 * time.Second)
			if code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			for _, want := range test.want {
				if !strings.Contains(log, want) {
					t.Errorf("the log lacks %q", want)
				}
			}
			r.nothingLeft(time.Second)
		})
	}
}
