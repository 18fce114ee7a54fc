package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// busy is a script that never ends by itself: commands, waits and writes to the
// guest's disk, each with a time-out.
const busy = `
import itertools

for i in itertools.count():
    machine.succeed("true", timeout=20)
    machine.wait_until_succeeds("grep -q . /proc/uptime", timeout=20)
    machine.succeed(f"dd if=/dev/zero of=/root/{i} bs=64k count=8 conv=fsync", timeout=20)
    machine.wait_for_file(f"/root/{i}", timeout=20)
    machine.execute("head -c 200000 /dev/zero | tr '\\0' z", timeout=20)
    machine.fail("sleep 0.3; false", timeout=20)
`

// fault is something that befalls a machine in the middle of a test.
type fault struct {
	name string
	do   func(t *testing.T, qemu int, disk smallDisk)
	// cause is what the error must say, limit how long it may take: a command's
	// time-out or that of the boot where nothing tells of the fault, and a
	// while for a busy host.
	cause string
	limit time.Duration
	codes []int // that the driver may exit with
}

const (
	chaosBoot  = 45 * time.Second
	chaosGrace = 20 * time.Second
)

var faults = []fault{
	{"killed", signalling(syscall.SIGKILL), `^!!! .*machine "machine": .*ended unexpectedly: signal: killed`, chaosGrace, []int{3}},
	{"stopped", signalling(syscall.SIGSTOP), `^!!! .*machine "machine": .*QEMU \(pid \d+\) is stopped`, chaosBoot + chaosGrace, []int{3}},
	// The guest lives on, and a command that fails there is a failure of the test.
	{"out of disk", func(t *testing.T, _ int, d smallDisk) { d.fill(t) }, `^!!! .*QEMU could not write the disk "drive1": [Nn]o space left on `, chaosBoot + chaosGrace, []int{1, 3}},
}

func signalling(s syscall.Signal) func(*testing.T, int, smallDisk) {
	return func(t *testing.T, qemu int, _ smallDisk) {
		if err := syscall.Kill(qemu, s); err != nil {
			t.Fatal(err)
		}
	}
}

// TestChaos has machines fail at random points of a test, while they boot and
// later, twice in each way or, in "make soak", a hundred times. The test ends at
// once or at its deadline, says why, and leaves nothing behind.
func TestChaos(t *testing.T) {
	rounds := 2 * len(faults)
	if os.Getenv("VM_PREBUILD_SOAK") != "" {
		rounds = 100
	}
	seed := rand.Uint64()
	if s := os.Getenv("VM_PREBUILD_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("VM_PREBUILD_SEED=%d repeats this", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range rounds {
		f := faults[i%len(faults)]
		// A guest boots within four seconds where nobody else computes.
		after := time.Duration(random.Int64N(int64(10 * time.Second)))
		t.Run(fmt.Sprintf("%d %s after %v", i, f.name, after.Round(time.Millisecond)), func(t *testing.T) {
			chaos(t, f, after)
		})
	}
}

func chaos(t *testing.T, f fault, after time.Duration) {
	disk := newSmallDisk(t)
	c := configOf(t, "vm-help")
	c["global_timeout"] = 300
	r := start(t, c, busy, "--boot-timeout", chaosBoot.String())
	qemu := r.qemu()
	time.Sleep(after)
	f.do(t, qemu, disk)
	begin := time.Now()
	cause := r.await(f.cause, f.limit)[0]
	t.Logf("after %v: %s", time.Since(begin).Round(time.Millisecond), cause)
	if code, _ := r.end(chaosGrace); !slices.Contains(f.codes, code) {
		t.Errorf("exit code %d, want one of %v", code, f.codes)
	}
	r.nothingLeft(time.Second)
	r.tidy()
}

// tidy fails the test if the driver has left more in its runtime directory than
// what a later one finds and uses.
func (r *run) tidy() {
	r.t.Helper()
	expected := regexp.MustCompile(`^(script\.py|config\.json|out|shared-xchg|vm-state-.*|\.nixos-test-run-\d+\.lock)$`)
	entries, err := os.ReadDir(filepath.Dir(r.out))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		if !expected.MatchString(e.Name()) {
			r.t.Errorf("left behind: %s", e.Name())
		}
	}
}

// smallDisk is a file system that is soon full. The test and all that it starts
// have their temporary files there, the machine's disk included.
type smallDisk struct{ dir string }

func newSmallDisk(t *testing.T) smallDisk {
	t.Helper()
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=96m,mode=0700"); err != nil {
		os.Remove(dir)
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("cannot mount a small file system: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		os.Remove(dir)
	})
	t.Setenv("TMPDIR", dir)
	return smallDisk{dir}
}

// fill takes all the space that is left.
func (d smallDisk) fill(t *testing.T) {
	t.Helper()
	f, err := os.Create(filepath.Join(d.dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zeros := make([]byte, 1<<20)
	for _, size := range []int{1 << 20, 4 << 10} { // what is left in the end is no page
		for err = nil; err == nil; {
			_, err = f.Write(zeros[:size])
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
}
