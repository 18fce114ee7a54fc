package admission

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// holderEnv makes this executable a process that enters the queue in the directory
// that it names, says so, and stays.
const holderEnv = "ADMISSION_TEST_DIR"

// blindEnv makes it one that the kernel tells of no change.
const blindEnv = "ADMISSION_TEST_BLIND"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holderEnv); dir != "" {
		var place *Place
		memory, err := strconv.Atoi(os.Args[1])
		if err == nil && os.Getenv(blindEnv) != "" {
			err = os.WriteFile("/proc/sys/user/max_inotify_instances", []byte("0"), 0) // in its user namespace
		}
		if err == nil {
			place, err = Enter(context.Background(), dir, "holder", Demand{1, memory, 1}, budget, func(_ []Ticket, unwatched error) {
				fmt.Println("waiting", strings.ReplaceAll(fmt.Sprint(unwatched), "\n", " "))
			})
		}
		fmt.Println("entered", err)
		time.Sleep(time.Hour)
		runtime.KeepAlive(place)
	}
	os.Exit(m.Run())
}

var budget = Budget{MemoryMiB: 100, Cores: 10}

// holder is such a process. It has said line.
func holder(t *testing.T, dir string, memoryMiB int, line string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", strconv.Itoa(memoryMiB))
	cmd.Env = append(os.Environ(), holderEnv+"="+dir)
	startHolder(t, cmd, line)
	return cmd
}

// startHolder starts it, and returns what it says after line.
func startHolder(t *testing.T, cmd *exec.Cmd, line string) *bufio.Reader {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	said := bufio.NewReader(out)
	if got, err := said.ReadString('\n'); err != nil || !strings.HasPrefix(got, line) {
		t.Fatalf("%q, %v", got, err)
	}
	return said
}

func enter(t *testing.T, dir string, memoryMiB int, timeout time.Duration) (*Place, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return Enter(ctx, dir, "test", Demand{1, memoryMiB, 1}, budget, func([]Ticket, error) {})
}

// TestDeadHolder: who was killed has nothing any more, and others start soon.
func TestDeadHolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	running := holder(t, dir, 80, "entered <nil>")
	waits := holder(t, dir, 90, "waiting")
	tickets, err := List(dir)
	if err != nil || len(tickets) != 2 || tickets[0].State != Running || tickets[1].State != Waiting {
		t.Fatalf("%+v, %v", tickets, err)
	}
	if _, err := enter(t, dir, 80, 50*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("over budget: %v", err)
	}
	if err := waits.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	entered := make(chan error, 1)
	go func() {
		p, err := enter(t, dir, 80, 10*time.Second)
		if err == nil {
			p.Leave()
		}
		entered <- err
	}()
	time.Sleep(50 * time.Millisecond)
	killed := time.Now()
	if err := running.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-entered; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(killed); took > 500*time.Millisecond {
		t.Errorf("it took %v to notice", took)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "*"+ticketSuffix)); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

// TestBlind: whom the kernel does not tell of changes gets in, too.
func TestBlind(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	p, err := enter(t, dir, 80, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "80")
	cmd.Env = append(os.Environ(), holderEnv+"="+dir, blindEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	said := startHolder(t, cmd, "waiting watch the queue of tests: too many open files")
	p.Leave()
	left := time.Now()
	if line, err := said.ReadString('\n'); err != nil || line != "entered <nil>\n" || time.Since(left) > 5*time.Second {
		t.Errorf("%q, %v after %v", line, err, time.Since(left))
	}
}

// TestLockHeld: a test waits for as long as somebody holds the lock.
func TestLockHeld(t *testing.T) {
	dir := t.TempDir()
	q, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	held := q.locked(t.Context(), func() error {
		_, err := enter(t, dir, 10, 100*time.Millisecond)
		return err
	})
	if !errors.Is(held, context.DeadlineExceeded) {
		t.Error(held)
	}
	p, err := enter(t, dir, 10, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	p.Leave()
}

// TestBudget lets many enter at once: there is never more than the budget, and all
// get in.
func TestBudget(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	var used, most, peak int
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			memory := 10 + i%4*20
			p, err := enter(t, dir, memory, time.Minute)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			used++
			tickets, err := List(dir)
			sum := 0
			for _, o := range tickets {
				if o.State == Running {
					sum += o.Demand.MemoryMiB
				}
			}
			most, peak = max(most, sum), max(peak, used)
			mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			time.Sleep(5 * time.Millisecond)
			mu.Lock()
			used--
			mu.Unlock()
			p.Leave()
		})
	}
	group.Wait()
	if most > budget.MemoryMiB || peak < 2 {
		t.Errorf("at most %d MiB and %d at once", most, peak)
	}
}

func TestTurn(t *testing.T) {
	now := time.Now()
	ticket := func(number int, state State, memoryMiB int, age time.Duration) Ticket {
		return Ticket{Number: number, State: state, Since: now.Add(-age), Demand: Demand{1, memoryMiB, 1}, Budget: budget}
	}
	mine := ticket(5, Waiting, 30, 0)
	for name, tt := range map[string]struct {
		others []Ticket
		want   bool
		before []int
	}{
		"alone":                        {nil, true, nil},
		"room":                         {[]Ticket{ticket(1, Running, 70, 0)}, true, []int{1}},
		"no room":                      {[]Ticket{ticket(1, Running, 71, 0)}, false, []int{1}},
		"an earlier one that could":    {[]Ticket{ticket(4, Waiting, 60, 0)}, false, []int{4}},
		"a later one":                  {[]Ticket{ticket(6, Waiting, 60, time.Hour)}, true, nil},
		"an earlier one that cannot":   {[]Ticket{ticket(1, Running, 50, 0), ticket(4, Waiting, 60, 0)}, true, []int{1, 4}},
		"one that was passed for long": {[]Ticket{ticket(1, Running, 50, 0), ticket(4, Waiting, 60, maxPassed)}, false, []int{1, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			before, got := turn(mine, tt.others, now)
			var numbers []int
			for _, b := range before {
				numbers = append(numbers, b.Number)
			}
			if got != tt.want || cmp.Diff(tt.before, numbers) != "" {
				t.Errorf("%v, before it %v", got, numbers)
			}
		})
	}
}

// TestStrangers: what is no ticket is left alone, and a damaged one is named.
func TestStrangers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "0000000007"+ticketSuffix), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := enter(t, dir, 10, time.Second) // nobody has locked it: it is nobody's
	if err != nil {
		t.Fatal(err)
	}
	defer p.Leave()
	if err := os.WriteFile(p.file.Name(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := List(dir); err == nil || !strings.Contains(err.Error(), p.file.Name()) {
		t.Error(err)
	}
	if _, err := enter(t, dir, 1000, time.Second); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}
