package warm_test

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/internal/guesttest"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/machine/machinetest"
	"vm-prebuild/testrun/qemu"
	"vm-prebuild/testrun/reaper"
	"vm-prebuild/testrun/startcommand"
	"vm-prebuild/testrun/vlan"
	"vm-prebuild/testrun/warm"
)

func TestMain(m *testing.M) {
	reaper.Main()
	os.Exit(m.Run())
}

// lines collects what is said of machines.
type lines struct {
	mu  sync.Mutex
	all []string
}

// Handle implements event.Sink.
func (l *lines) Handle(r event.Record) {
	if log, ok := r.Event.(event.Log); ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all = append(l.all, log.Text)
	}
}

// Close implements event.Sink.
func (l *lines) Close() error { return nil }

// find returns the line that begins so.
func (l *lines) find(t testing.TB, prefix string) string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.all {
		if strings.HasPrefix(line, prefix) {
			return line
		}
	}
	t.Fatalf("no line begins with %q:\n%s", prefix, strings.Join(l.all, "\n"))
	return ""
}

// lab is where machines of one start script are started.
type lab struct {
	script string
	store  warm.Store
}

func newLab(t testing.TB, guest string) *lab {
	t.Helper()
	dir := t.TempDir()
	return &lab{script: guesttest.Savable(t, guesttest.Guests[guest], dir), store: warm.Store{Dir: filepath.Join(dir, "states")}}
}

// machine returns a new machine of the lab.
func (l *lab) machine(t testing.TB, o warm.Options) (*machine.Guest, *lines) {
	t.Helper()
	dir, err := os.MkdirTemp("", "warm") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "shared"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := reaper.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	v, err := vlan.Start(1, filepath.Join(dir, "vde1.ctl"), vlan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	said := &lines{}
	bus := event.NewBus(said)
	m := qemu.New(qemu.Config{
		Name:        "machine",
		Command:     startcommand.Command{Script: l.script},
		Dirs:        machine.Dirs{State: filepath.Join(dir, "state"), Shared: filepath.Join(dir, "shared"), Out: dir},
		ForceTCG:    func() (bool, error) { return true, nil },
		BootTimeout: 5 * time.Minute,
		Bus:         bus,
		Reaper:      r,
	})
	t.Cleanup(func() {
		_ = m.Release()
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	o.Store = l.store
	return &machine.Guest{
		Machine:   m,
		Bus:       bus,
		Boot:      machine.StartOptions{Env: append(os.Environ(), "QEMU_VDE_SOCKET_1="+v.Dir())},
		Starter:   warm.NewStarter(o, bus),
		Snapshots: new(warm.Snapshots),
	}, said
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func succeed(t testing.TB, g *machine.Guest, command string) string {
	t.Helper()
	out, err := g.Succeed(t.Context(), []string{command}, time.Minute)
	must(t, err)
	return out
}

// save makes the state of the lab's machine.
func (l *lab) save(t testing.TB) {
	t.Helper()
	g, said := l.machine(t, warm.Options{Mode: warm.Auto, Save: true})
	must(t, g.Start(t.Context(), g.Boot))
	t.Log(said.find(t, "saved its state in "))
	t.Log(said.find(t, "started warm, "))
	must(t, g.Machine.Release())
	must(t, g.Starter.(*warm.Starter).Close())
}

// Machines that are restored one after the other answer, know what time it is, see
// their shares and have random numbers of their own.
func TestRestore(t *testing.T) {
	n := 5
	if os.Getenv("VM_PREBUILD_SOAK") != "" {
		n = 500
	}
	for guest := range guesttest.Guests {
		t.Run(guest, func(t *testing.T) {
			l := newLab(t, guest)
			l.save(t)
			random := map[string]bool{}
			var took []time.Duration
			for range n {
				begin := time.Now()
				g, said := l.machine(t, warm.Options{Mode: warm.Require})
				succeed(t, g, "true")
				took = append(took, time.Since(begin))
				said.find(t, "started warm, ")
				checkClock(t, g)
				for _, command := range []string{"cat /proc/sys/kernel/random/uuid", "head -c 16 /dev/urandom | base64"} {
					out := succeed(t, g, command)
					if random[out] {
						t.Errorf("%s is of another clone, too: %s", command, out)
					}
					random[out] = true
				}
				must(t, os.WriteFile(filepath.Join(g.Machine.Dirs().Shared, "x"), []byte("of the host\n"), 0o644))
				if out := succeed(t, g, "cat /tmp/shared/x"); out != "of the host\n" {
					t.Errorf("the shared directory has %q", out)
				}
				must(t, g.Machine.Release())
			}
			slices.Sort(took)
			t.Logf("%d restores to the first answer: median %v, %v to %v", n, took[n/2], took[0], took[n-1])
		})
	}
}

// checkClock wants the guest's clock to be right.
func checkClock(t *testing.T, g *machine.Guest) {
	t.Helper()
	const tolerance = 100 * time.Millisecond
	before := time.Now()
	text := succeed(t, g, "echo $EPOCHREALTIME")
	after := time.Now()
	seconds, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	must(t, err)
	now := time.UnixMicro(int64(seconds * 1e6))
	if now.Before(before.Add(-tolerance)) || now.After(after.Add(tolerance)) {
		t.Errorf("the guest's clock says %v, and it is between %v and %v", now, before, after)
	}
}

// What machines do, those that were restored do, too: two at once.
func TestConformance(t *testing.T) {
	for guest := range guesttest.Guests {
		t.Run(guest, func(t *testing.T) {
			l := newLab(t, guest)
			l.save(t)
			t.Run("clones", func(t *testing.T) {
				for _, clone := range []string{"1", "2"} {
					t.Run(clone, func(t *testing.T) {
						t.Parallel()
						machinetest.Run(t, func(t *testing.T) *machine.Guest {
							g, _ := l.machine(t, warm.Options{Mode: warm.Require})
							return g
						})
					})
				}
			})
		})
	}
}

// edit changes the start script before the last of QEMU's arguments.
func (l *lab) edit(t *testing.T, change func(text string) string) {
	t.Helper()
	text, err := os.ReadFile(l.script)
	must(t, err)
	edited := change(string(text))
	if edited == string(text) {
		t.Fatalf("a start script of another kind than nix/offline's:\n%s", text)
	}
	must(t, os.WriteFile(l.script, []byte(edited), 0o755))
}

// A machine in two VLANs is in both after it was restored.
func TestTwoVLANs(t *testing.T) {
	l := newLab(t, "mini")
	l.edit(t, func(text string) string {
		return strings.Replace(text, ` $QEMU_OPTS "$@"`,
			` -netdev vde,id=vlan2,sock="$QEMU_VDE_SOCKET_2" -device virtio-net-pci,netdev=vlan2,mac=52:54:00:12:02:01,romfile= $QEMU_OPTS "$@"`, 1)
	})
	ready, err := warm.ParseReady("command:ip link set eth2 up && ip addr add 192.168.2.1/24 dev eth2")
	must(t, err)
	start := func(o warm.Options) (*machine.Guest, *vlan.VLAN, *lines) {
		dir, err := os.MkdirTemp("", "vlan")
		must(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		second, err := vlan.Start(2, filepath.Join(dir, "vde2.ctl"), vlan.Options{})
		must(t, err)
		o.Ready = ready
		g, said := l.machine(t, o)
		g.Boot.Env = append(g.Boot.Env, "QEMU_VDE_SOCKET_2="+second.Dir())
		must(t, g.Start(t.Context(), g.Boot))
		t.Cleanup(func() {
			_ = g.Machine.Release()
			if err := second.Close(); err != nil {
				t.Error(err)
			}
		})
		return g, second, said
	}
	g, _, _ := start(warm.Options{Mode: warm.Auto, Save: true})
	must(t, g.Machine.Release())
	g, second, said := start(warm.Options{Mode: warm.Require})
	said.find(t, "started warm, ")
	if out := succeed(t, g, "cat /sys/class/net/eth2/address; ip -o -4 addr show eth2"); !strings.HasPrefix(out, "52:54:00:12:02:01\n") || !strings.Contains(out, "192.168.2.1/24") {
		t.Errorf("its second VLAN: %q", out)
	}
	before := second.Traffic()
	succeed(t, g, "ping -c 1 -W 1 192.168.2.2 || true")
	after := second.Traffic()
	if len(before) != 1 || len(after) != 1 || after[0].FromFrames <= before[0].FromFrames {
		t.Errorf("nothing came out of it: %+v, then %+v", before, after)
	}
}

// A newer QEMU saves and restores as this one does, and neither takes a state of
// the other's.
func TestOtherQEMU(t *testing.T) {
	newer := filepath.Join(cmp.Or(os.Getenv("VM_PREBUILD_TRIXIE"), "/var/cache/vm-prebuild/trixie"), "bin/qemu-system-x86_64") // see nix/offline/trixie.sh
	version, err := exec.CommandContext(t.Context(), newer, "--version").Output()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Logf("%s", version)
	for guest := range guesttest.Guests {
		t.Run(guest, func(t *testing.T) {
			l := newLab(t, guest)
			l.save(t)
			l.edit(t, func(text string) string {
				return regexp.MustCompile(`(?m)^exec \S+/qemu-system-x86_64 `).ReplaceAllString(text, "exec "+newer+" ")
			})
			g, _ := l.machine(t, warm.Options{Mode: warm.Require})
			if err := g.Start(t.Context(), g.Boot); err == nil || !strings.Contains(err.Error(), "differs in: start script's text, QEMU") {
				t.Errorf("error %v", err)
			}
			l.save(t)
			random := map[string]bool{}
			for range 3 {
				g, said := l.machine(t, warm.Options{Mode: warm.Require})
				random[succeed(t, g, "cat /proc/sys/kernel/random/uuid")] = true
				said.find(t, "started warm, ")
				checkClock(t, g)
				must(t, g.Machine.Release())
			}
			if len(random) != 3 {
				t.Errorf("random numbers are of several clones: %v", random)
			}
		})
	}
}
