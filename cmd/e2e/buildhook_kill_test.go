package e2e

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// untilSays starts a command and waits until its error output has a text.
func untilSays(t *testing.T, cmd *exec.Cmd, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "log")
	log, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		said, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(said, []byte(text)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not say %q:\n%s", text, said)
		}
	}
}

// wantNoProcess waits until no process has a command line.
func wantNoProcess(t *testing.T, commandLine string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, _ := exec.CommandContext(t.Context(), "pgrep", "-fx", commandLine).Output() // it fails if there is none
		if len(out) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still running: %s", out)
		}
	}
}

// TestHookInterrupted: Ctrl-C ends a test that ignores all signals, and what has made
// itself independent of it.
func TestHookInterrupted(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		salt := strconv.Itoa(os.Getpid())
		cmd := n.buildCommand("stubborn", "--argstr", "salt", salt)
		untilSays(t, cmd, "started")
		if err := exec.CommandContext(t.Context(), "pgrep", "-fx", "sleep 3611."+salt).Run(); err != nil {
			t.Fatal("the test does not run: ", err)
		}
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("nix-build succeeds")
		}
		wantNoProcess(t, "sleep 3611."+salt)
		n.checkNothingRuns()
		n.mustBuild("passing") // and what the killed hook has left is removed
		n.checkClean()

		// A Nix that is killed kills nobody.
		cmd = n.buildCommand("stubborn", "--argstr", "salt", salt)
		untilSays(t, cmd, "started")
		for _, pid := range n.builders(cmd.Process.Pid) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Error("nix-build succeeds")
		}
		wantNoProcess(t, "sleep 3611."+salt)
		n.mustBuild("passing", "--argstr", "salt", "after")
		n.checkClean()
	})
}

// wrapHook has a shell stay between Nix and the hook. When Nix is killed, the kernel
// kills what Nix has started, and that is the shell.
func (n *hookNix) wrapHook() {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir(), "hook.sh"))
	if err != nil {
		n.t.Fatal(err)
	}
	n.write("hook.sh", strings.Replace(string(text), "exec ", "", 1)+"exit $?\n", 0o755)
}

// TestHookTalkative kills a Nix that has not read all that a test says, which is built
// by the hook, or by Nix's own hook.
func TestHookTalkative(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		n.wrapHook()
		n.killReader("talkative")
		remote := filepath.Join(n.dir(), "remote")
		n.killReader("talkativeElsewhere", "--option", "builders", remote+" x86_64-linux - 1 1 elsewhere")
		n.mustBuild("passing")
		n.checkClean()
	})
}

// killReader kills a Nix while it builds an attribute that says more than it reads.
func (n *hookNix) killReader(attribute string, args ...string) {
	n.t.Helper()
	salt := strconv.Itoa(os.Getpid())
	cmd := n.buildCommand(attribute, append(args, "--no-build-output", "--argstr", "salt", salt)...)
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	commandLine := "yes 3611." + salt
	for deadline := time.Now().Add(time.Minute); exec.CommandContext(n.t.Context(), "pgrep", "-fx", commandLine).Run() != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatal("the test does not run: ", n.decisions())
		}
	}
	builders := n.builders(cmd.Process.Pid)
	for _, pid := range builders {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			n.t.Fatal(err)
		}
	}
	time.Sleep(300 * time.Millisecond) // all pipes are full
	for _, pid := range builders {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err == nil {
		n.t.Error("nix-build succeeds")
	}
	wantNoProcess(n.t, commandLine)
	n.checkNothingRuns()
}

// builders are the processes of Nix that have started hooks for the one with number
// client: itself, or those of the daemon.
func (n *hookNix) builders(client int) (pids []int) {
	n.t.Helper()
	if !n.daemon {
		return []int{client}
	}
	out, err := exec.CommandContext(n.t.Context(), "pgrep", "-P", strconv.Itoa(n.server.Process.Pid)).Output()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, field := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			n.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// hooks are the processes that are hooks of n.
func (n *hookNix) hooks() (pids []int) {
	for _, process := range n.processes() {
		pid, command, _ := strings.Cut(process, ": ")
		if strings.Contains(command, "nix-vm-build-hook --store") {
			number, err := strconv.Atoi(pid)
			if err != nil {
				n.t.Fatal(err)
			}
			pids = append(pids, number)
		}
	}
	return pids
}

// accepted waits until the hook has accepted a derivation that is not the one before.
func (n *hookNix) accepted(before string) {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		if added, ok := strings.CutPrefix(n.decisions(), before); ok && strings.Contains(added, `"event":"accepted"`) {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatal("no build is accepted: ", n.decisions())
		}
	}
}

// took is the time from accepting the last build to its end.
func (n *hookNix) took() (d time.Duration) {
	n.t.Helper()
	var accepted time.Time
	for _, e := range n.logEntries() {
		switch e.Event {
		case "accepted":
			accepted = e.Time
		case "built":
			d = e.Time.Sub(accepted)
		}
	}
	return d
}

// TestHookKilled kills the hook at random moments of a build. Nothing of the build is
// left, no path is half there, and the next build succeeds.
func TestHookKilled(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		n.mustBuild("ordinary fixed")
		n.mustBuild("passing")
		whole := n.took()
		kills, over, late := times(5, 100), 0, 0
		for i := range kills {
			salt := "kill" + strconv.Itoa(i)
			n.mustBuild("ordinary fixed", "--argstr", "salt", salt)
			before := n.decisions()
			// One in each part of the build.
			after := time.Duration((float64(i) + rand.Float64()) / float64(kills) * float64(whole))
			cmd := n.buildCommand("passing", "--argstr", "salt", salt)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			n.accepted(before)
			time.Sleep(after)
			killed := false
			for _, pid := range n.hooks() {
				killed = syscall.Kill(pid, syscall.SIGKILL) == nil || killed
			}
			err := cmd.Wait()
			switch {
			case !killed:
				over++
			case err == nil:
				late++
			}
			n.checkNothingRuns()
			verifyStore(t, n.root)
			if _, log, err := n.build("passing", "--argstr", "salt", salt); err != nil {
				t.Fatalf("killed after %v: the next build fails: %v\n%s\n%s", after, err, log, n.decisions())
			}
			if t.Failed() {
				t.Fatalf("killed after %v", after)
			}
		}
		// If the last one was killed when all was done, its files are still there.
		n.mustBuild("passing", "--argstr", "salt", "last")
		n.checkClean()
		t.Logf("a build takes %v; of %d hooks, %d were no more, and %d had done all", whole, kills, over, late)
		if hit := kills - over - late; hit*5 < kills*2 {
			t.Errorf("only %d of %d hooks were killed while they built", hit, kills)
		}
	})
}
