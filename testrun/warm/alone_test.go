package warm_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"vm-prebuild/testrun/internal/guesttest"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/vlan"
	"vm-prebuild/testrun/warm"
)

// Two machines that boot at once to be saved see neither each other nor the files that
// their test shares with them; once they are restored, they see both.
func TestSavedAlone(t *testing.T) {
	names := []string{"client", "server"} // 192.168.1.1, 192.168.1.2
	dir, err := os.MkdirTemp("", "alone")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	shared := filepath.Join(dir, "shared")
	must(t, os.Mkdir(shared, 0o700))
	must(t, os.WriteFile(filepath.Join(shared, "of-the-test"), nil, 0o600))
	var plugged atomic.Int32 // clients that the test's VLAN ever had
	v, err := vlan.Start(1, filepath.Join(dir, "vde1.ctl"), vlan.Options{Owner: func(int) string { plugged.Add(1); return "" }})
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	ready, err := warm.ParseReady(`command:ls -A /tmp/shared >/root/shared; touch /tmp/shared/by-$HOSTNAME
for i in 1 2; do ping -c 1 -W 1 192.168.1.$i || true; done >/root/pings`)
	must(t, err)

	guests := map[string]*machine.Guest{}
	said := map[string]*lines{}
	for _, name := range names {
		scripts := t.TempDir()
		l := &lab{script: guesttest.Savable(t, guesttest.Guest{Test: "vm-two-machines", Machine: name}, scripts), store: warm.Store{Dir: filepath.Join(scripts, "states")}}
		g, s := l.machine(t, warm.Options{Mode: warm.Require, Save: true, Ready: ready})
		dirs := g.Machine.Dirs()
		dirs.Shared = shared
		g.Machine.(machine.Mover).SetDirs(dirs)
		g.Boot.Env = append(g.Boot.Env, "QEMU_VDE_SOCKET_1="+v.Dir())
		guests[name], said[name] = g, s
	}
	var all sync.WaitGroup
	for _, g := range guests {
		all.Go(func() {
			if err := g.Start(t.Context(), g.Boot); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i, name := range names {
		g := guests[name]
		t.Log(said[name].find(t, "saved its state in "))
		said[name].find(t, "started warm, ")
		if out := succeed(t, g, "cat /root/shared"); out != "" {
			t.Errorf("%s found %q while it was booted to be saved", name, out)
		}
		out := succeed(t, g, "cat /root/pings")
		if other := fmt.Sprintf("from 192.168.1.%d", 2-i); strings.Contains(out, other) || !strings.Contains(out, fmt.Sprintf("from 192.168.1.%d", 1+i)) {
			t.Errorf("%s heard of %s, or not of itself: %s", name, other, out)
		}
		if _, err := os.Stat(filepath.Join(g.Machine.Dirs().State, "../vm-saving-machine")); !os.IsNotExist(err) {
			t.Errorf("what %s booted with is left: %v", name, err)
		}
	}
	if n := plugged.Load(); n != 2 {
		t.Errorf("the test's VLAN has seen %d clients", n)
	}
	if left, err := os.ReadDir(shared); err != nil || len(left) != 1 {
		t.Errorf("the shared directory has %v, %v", left, err)
	}
	for i, name := range names {
		// The first can be lost: the guest knows from before that nobody is there.
		if out := succeed(t, guests[name], fmt.Sprintf("ls /tmp/shared; ping -c 3 -W 5 192.168.1.%d >/dev/null", 2-i)); out != "of-the-test\n" {
			t.Errorf("the shared directory of %s has %q", name, out)
		}
	}
}
