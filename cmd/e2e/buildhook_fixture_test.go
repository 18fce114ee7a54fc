package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hookNix is a Nix with a store of its own that has neither KVM nor the features of
// tests, and our build hook.
type hookNix struct {
	t       *testing.T
	version string // 2.8 or 2.26
	bin     string // directory of its programs
	daemon  bool   // a daemon builds, as other users; else the command itself does
	user    int    // who calls Nix, and the hook if there is no daemon
	root    string // of the store
	hookDir string // the hook's directory
	file    string // with what is built

	server *exec.Cmd
}

// nixVersions are the directories of the programs of each.
func nixVersions(t *testing.T) map[string]string {
	t.Helper()
	newer := os.Getenv("VM_PREBUILD_TRIXIE") // see nix/offline/trixie.sh
	if newer == "" {
		newer = "/var/cache/vm-prebuild/trixie"
	}
	older, err := exec.LookPath("nix")
	if _, newErr := os.Stat(filepath.Join(newer, "bin/nix")); err != nil || newErr != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err, newErr)
		}
		t.Skip(err, newErr)
	}
	return map[string]string{"2.8": filepath.Dir(older), "2.26": filepath.Join(newer, "bin")}
}

// nobody is a user without privileges.
const nobody = 65534

// eachHookNix runs a test with each Nix: alone as root, alone as a user without
// privileges, and with a daemon.
func eachHookNix(t *testing.T, test func(t *testing.T, n *hookNix)) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("daemons need root")
	}
	tool(t, "nix-vm-build-hook")
	for version, bin := range nixVersions(t) {
		t.Run(version+" alone", func(t *testing.T) { test(t, newHookNix(t, version, bin, false, 0)) })
		t.Run(version+" unprivileged", func(t *testing.T) { test(t, newHookNix(t, version, bin, false, nobody)) })
		t.Run(version+" daemon", func(t *testing.T) { test(t, newHookNix(t, version, bin, true, 0)) })
	}
}

// oneHookNix is for what does not depend on Nix.
func oneHookNix(t *testing.T) *hookNix {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("builds need root here")
	}
	tool(t, "nix-vm-build-hook")
	return newHookNix(t, "2.8", nixVersions(t)["2.8"], false, 0)
}

func newHookNix(t *testing.T, version, bin string, daemon bool, user int) *hookNix {
	t.Helper()
	n := &hookNix{t: t, version: version, bin: bin, daemon: daemon, user: user}
	// Sockets have short names.
	dir, err := os.MkdirTemp("", "hook")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("sh", "-c", `chmod -R u+w "$1"; rm -rf "$1"`, "sh", dir).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	n.root, n.hookDir = filepath.Join(dir, "root"), filepath.Join(dir, "hook")
	n.file = filepath.Join(dir, "tests.nix")
	for _, d := range []string{filepath.Join(dir, "etc"), filepath.Join(dir, "home"), filepath.Join(n.root, "nix/var/nix")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// All that is needed is where any user can read it.
	if out, err := exec.Command("sh", "-euc", `cp testdata/buildhook/tests.nix "$1"; cp "$2" "$1/nix-vm-build-hook"; chmod 755 "$1"; chown -R "$3:$3" "$1"`,
		"sh", dir, tool(t, "nix-vm-build-hook"), strconv.Itoa(user)).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	n.flags("--tcg=allow")
	n.write("hook.sh", fmt.Sprintf("#!/bin/sh\n. %q\nexec %q --store %q --nix %q \"$@\"\n", filepath.Join(dir, "flags"), filepath.Join(dir, "nix-vm-build-hook"), n.hookDir, bin), 0o755)
	if daemon {
		n.start()
	}
	return n
}

func (n *hookNix) dir() string { return filepath.Dir(n.hookDir) }

func (n *hookNix) write(name, text string, mode os.FileMode) string {
	n.t.Helper()
	file := filepath.Join(n.dir(), name)
	err := os.WriteFile(file, []byte(text), mode)
	if err == nil {
		err = os.Chown(file, n.user, n.user)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return file
}

// flags sets those that the hook gets besides the usual ones.
func (n *hookNix) flags(flags ...string) {
	n.t.Helper()
	var b strings.Builder
	b.WriteString("set --")
	for _, flag := range flags {
		fmt.Fprintf(&b, " '%s'", flag)
	}
	n.write("flags", b.String()+` "$@"`+"\n", 0o644)
}

// config is what Nix is told.
func (n *hookNix) config() string {
	users := ""
	if n.daemon {
		users = "nixbld"
	}
	return fmt.Sprintf(`experimental-features = nix-command
sandbox = true
sandbox-paths = /usr /bin /sbin /lib /lib64
build-users-group = %s
substituters =
system-features = benchmark
builders =
build-hook = %s
`, users, filepath.Join(n.dir(), "hook.sh"))
}

// start starts the daemon, for which the store is that of the machine.
func (n *hookNix) start() {
	n.t.Helper()
	var users, members []string
	for i := 1; i <= 8; i++ {
		members = append(members, fmt.Sprintf("nixbld%d", i))
		users = append(users, fmt.Sprintf("nixbld%d:x:%d:30000::/var/empty:/bin/false", i, 30000+i))
	}
	n.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"+strings.Join(users, "\n")+"\n", 0o644)
	n.write("etc/group", "root:x:0:\nnixbld:x:30000:"+strings.Join(members, ",")+"\n", 0o644)
	cmd := exec.Command("unshare", "--mount", "sh", "-euc", `
		mount --bind "$1/root/nix" /nix
		mount --bind "$1/etc/passwd" /etc/passwd
		mount --bind "$1/etc/group" /etc/group
		exec "$2/nix-daemon"`, "sh", n.dir(), n.bin)
	cmd.Env = append(os.Environ(), "NIX_CONFIG="+n.config())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.server = cmd
	n.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // killed
		if n.t.Failed() {
			n.t.Logf("the daemon said:\n%s", &output)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(n.socket()); err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatal("the daemon has not made its socket")
		}
	}
}

func (n *hookNix) socket() string {
	return filepath.Join(n.root, "nix/var/nix/daemon-socket/socket")
}

// command is one of Nix, of the user.
func (n *hookNix) command(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(n.t.Context(), 3*time.Minute)
	n.t.Cleanup(cancel)
	args = append([]string{filepath.Join(n.bin, name)}, args...)
	remote := n.root
	if n.daemon {
		// A client looks into the store, too.
		directory, err := os.Getwd()
		if err != nil {
			n.t.Fatal(err)
		}
		args = append([]string{"nsenter", "--mount", "--target", strconv.Itoa(n.server.Process.Pid), "--wd=" + directory}, args...)
		remote = "daemon"
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "NIX_CONFIG="+n.config(), "NIX_REMOTE="+remote, "HOME="+filepath.Join(n.dir(), "home"))
	if n.user != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(n.user), Gid: uint32(n.user)}
	}
	return cmd
}

// build builds attributes of tests.nix. It returns what Nix has printed: output
// paths, and everything else.
func (n *hookNix) build(attributes string, args ...string) (paths []string, log string, err error) {
	n.t.Helper()
	cmd := n.buildCommand(attributes, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return strings.Fields(out.String()), errOut.String(), err
}

func (n *hookNix) buildCommand(attributes string, args ...string) *exec.Cmd {
	all := []string{"--no-out-link", n.file}
	for attribute := range strings.FieldsSeq(attributes) {
		all = append(all, "-A", attribute)
	}
	return n.command("nix-build", append(all, args...)...)
}

// mustBuild builds what must succeed.
func (n *hookNix) mustBuild(attributes string, args ...string) (paths []string, log string) {
	n.t.Helper()
	paths, log, err := n.build(attributes, args...)
	if err != nil {
		n.t.Fatalf("%s: %v\n%s\n%s", attributes, err, log, n.decisions())
	}
	return paths, log
}

// mustFail builds what must fail with one of the texts.
func (n *hookNix) mustFail(attributes string, texts []string, args ...string) (log string) {
	n.t.Helper()
	_, log, err := n.build(attributes, args...)
	if e := new(exec.ExitError); !errors.As(err, &e) {
		n.t.Fatalf("%s does not fail: %v\n%s\n%s", attributes, err, log, n.decisions())
	}
	wantTexts(n.t, log, texts...)
	return log
}

// wantTexts wants all texts in a log.
func wantTexts(t *testing.T, log string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(log, text) {
			t.Errorf("no %q in\n%s", text, log)
		}
	}
}

// query runs nix-store --query.
func (n *hookNix) query(args ...string) []string {
	n.t.Helper()
	out, err := n.command("nix-store", append([]string{"--query"}, args...)...).Output()
	if err != nil {
		n.t.Fatal(args, err)
	}
	return strings.Fields(string(out))
}

// read reads a file of a store path.
func (n *hookNix) read(path string) string {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.root, path))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

// decisions is the hook's log.
func (n *hookNix) decisions() string {
	text, err := os.ReadFile(filepath.Join(n.hookDir, "log.jsonl"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// checkClean makes sure that Nix finds nothing wrong in the store, and that no build
// has left anything: not in the hook's directory, no process, no mount.
func (n *hookNix) checkClean() {
	n.t.Helper()
	verifyStore(n.t, n.root)
	n.checkNothingRuns()
	for dir, allowed := range map[string]string{"builds": "", "queue": "lock"} {
		entries, err := os.ReadDir(filepath.Join(n.hookDir, dir))
		if err != nil {
			n.t.Error(err)
		}
		for _, entry := range entries {
			if entry.Name() != allowed {
				n.t.Errorf("left behind: %s/%s", dir, entry.Name())
			}
		}
	}
	// After a failed build, Nix leaves their files.
	locks, err := filepath.Glob(filepath.Join(n.root, "nix/store/*.lock"))
	if err != nil {
		n.t.Fatal(err)
	}
	for _, name := range locks {
		lock, err := os.Open(name)
		if err != nil {
			n.t.Fatal(err)
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			n.t.Errorf("%s: %v", name, err)
		}
		lock.Close()
	}
}

// withoutHook are arguments by which Nix does not use ours.
func (n *hookNix) withoutHook() []string {
	if n.version == "2.8" {
		return []string{"--option", "build-hook", "/usr/libexec/nix/build-remote"} // the default
	}
	return []string{"--option", "build-hook", ""}
}

// checkNothingRuns waits until no process has the hook's directory in its command line
// or among its mounts.
func (n *hookNix) checkNothingRuns() {
	n.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left := n.processes()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			n.t.Errorf("still running:\n%s", strings.Join(left, "\n"))
			return
		}
	}
}

func (n *hookNix) processes() (left []string) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, dir := range dirs {
		commandLine, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // it may have ended
		mounts, _ := os.ReadFile(filepath.Join(dir, "mountinfo"))
		if bytes.Contains(commandLine, []byte(n.hookDir)) || bytes.Contains(mounts, []byte(n.hookDir+"/builds")) {
			left = append(left, filepath.Base(dir)+": "+string(bytes.ReplaceAll(commandLine, []byte{0}, []byte(" "))))
		}
	}
	return left
}
