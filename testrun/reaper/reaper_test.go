package reaper_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vm-prebuild/testrun/reaper"
)

const parentEnv = "REAPER_TEST_DIR"

func TestMain(m *testing.M) {
	reaper.Main()
	if dir := os.Getenv(parentEnv); dir != "" {
		parent(dir)
	}
	os.Exit(m.Run())
}

// family is a child with two grandchildren, one of them in a session of its
// own; all ignore the polite signals. It prints their process numbers.
const family = `trap '' TERM HUP INT; sleep 600 & one=$!; setsid sleep 600 & echo $$ $one $!; wait`

// parent starts a family and prints its pids, then waits to be killed. It locks
// a file.
func parent(dir string) {
	file, err := os.Create(dir + ".lock")
	if err != nil {
		panic(err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		panic(err)
	}
	r, err := reaper.Start(file)
	if err != nil {
		panic(err)
	}
	r.RemoveAtDeath(dir)
	cmd := exec.Command("sh", "-c", family)
	cmd.Stdout = os.Stdout
	if err := r.Spawn(cmd); err != nil {
		panic(err)
	}
	select {}
}

// gone waits until the processes have ended.
func gone(t *testing.T, pids []int) {
	t.Helper()
	deadline := time.Now().Add(time.Second)
	for _, pid := range pids {
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d is alive a second later", pid)
			}
			time.Sleep(5 * time.Millisecond) // there is no event for a stranger's end
		}
	}
}

// alive reports whether pid runs; a zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func readPids(t *testing.T, r *bufio.Reader) []int {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, f := range strings.Fields(line) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func TestSIGKILLOfTheParent(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), parentEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids := readPids(t, bufio.NewReader(out))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	gone(t, pids)
	// Who gets the lock finds nothing left.
	lock, err := os.Open(dir + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	deadline := time.Now().Add(10 * time.Second) // the race detector has a process exit after one
	for syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the file stays locked")
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestKillAndClose(t *testing.T) {
	r, err := reaper.Start()
	if err != nil {
		t.Fatal(err)
	}
	start := func() (*exec.Cmd, []int) {
		cmd := exec.Command("sh", "-c", family)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Spawn(cmd); err != nil {
			t.Fatal(err)
		}
		return cmd, readPids(t, bufio.NewReader(out))
	}
	first, pids := start()
	r.Kill(first.Process.Pid)
	_ = first.Wait()
	gone(t, pids[:2]) // the third has left the group, and ends with the reaper

	second, pids := start()
	r.Close()
	_ = second.Wait()
	gone(t, pids)
	r.Close() // a second time does nothing
}

func TestOneGroupIsLeftAlone(t *testing.T) {
	r, err := reaper.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if err := r.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	// A child in our own process group must not take us along.
	r.Kill(cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestMissingProgram(t *testing.T) {
	r, err := reaper.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Spawn(exec.Command("/nonexistent/program")); err == nil {
		t.Error("no error")
	}
}
