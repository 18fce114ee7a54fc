package warm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/internal/guesttest"
	"vm-prebuild/testrun/warm"
)

// What cannot be saved is refused by its name, before the guest has booted.
func TestRefused(t *testing.T) {
	l := newLab(t, "mini")
	disk := filepath.Join(t.TempDir(), "second.qcow2")
	must(t, exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", disk, "1M").Run())
	shared := &lab{script: guesttest.StartScript(t, guesttest.Guests["mini"]), store: l.store}
	for name, test := range map[string]struct {
		lab    *lab
		env    string
		reason string
	}{
		"store of the host's": {shared, "", "its /nix/store is a share (9p) of the host's"},
		"second disk":         {l, "QEMU_OPTS=-drive if=virtio,file=" + disk, "it writes to virtio0 (" + disk + "), which is not the disk that NIX_DISK_IMAGE names"},
		"memory of its own":   {l, "QEMU_OPTS=-object memory-backend-ram,id=m,size=512M -machine memory-backend=m", "the start script says where its memory is"},
		"directory as a disk": {l, "QEMU_OPTS=-drive if=virtio,readonly=on,file=fat:" + t.TempDir(), "it has a directory of the host's as a disk (fat:)"},
		"disk of others":      {l, "NIX_DISK_IMAGE=" + disk, "NIX_DISK_IMAGE gives it a disk"},
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := test.lab.machine(t, warm.Options{Mode: warm.Require, Save: true})
			g.Boot.Env = append(g.Boot.Env, test.env)
			err := g.Start(t.Context(), g.Boot)
			if err == nil || !strings.Contains(err.Error(), test.reason) {
				t.Errorf("error %v, want one with %q", err, test.reason)
			}
			if lines := g.Machine.Console(); len(lines) > 0 {
				t.Errorf("the guest has booted: %q", lines)
			}
			if entries, err := os.ReadDir(l.store.Dir); err == nil && len(entries) > 0 {
				t.Errorf("the store has %v", entries)
			}
		})
	}
}

// A guest that does not let go of a share cannot be saved, and boots. Its disk is
// then not that of the machine that could not be saved.
func TestBusyShare(t *testing.T) {
	l := newLab(t, "mini")
	ready, err := warm.ParseReady("command:touch /root/left; cd /tmp/shared; { setsid sleep 1000 & } </dev/null >/dev/null 2>&1")
	must(t, err)
	g, said := l.machine(t, warm.Options{Mode: warm.Auto, Save: true, Ready: ready})
	if out := succeed(t, g, "ls /root; pidof sleep || echo none"); out != "none\n" {
		t.Errorf("the guest has %q", out)
	}
	if line := said.find(t, "starts cold: "); !strings.Contains(line, "unmounting /tmp/shared") {
		t.Error(line)
	}
}

// Guests of systemd's can have something done when they are restored.
func TestHook(t *testing.T) {
	l := newLab(t, "systemd")
	ready, err := warm.ParseReady(`command:cd /run/systemd/system
printf '[Unit]\nWants=hooked.service\n' >warm-restored.target
printf '[Service]\nType=oneshot\nExecStart=/bin/touch /run/hooked\n' >hooked.service
systemctl daemon-reload`)
	must(t, err)
	g, said := l.machine(t, warm.Options{Mode: warm.Require, Save: true, Ready: ready})
	succeed(t, g, "test -e /run/hooked")
	said.find(t, "started warm, ")
}

// nixpkgs' start scripts make the image of a machine's store anew at each start: it is
// what it was if its content is.
func TestImageMadeAtEachStart(t *testing.T) {
	l := newLab(t, "mini")
	text, err := os.ReadFile(l.script)
	must(t, err)
	image := filepath.Join(filepath.Dir(l.script), "store.erofs")
	made := strings.Replace(string(text), "file="+image, `file="$TMPDIR"/store.img`, 1)
	made = strings.Replace(made, "\nexec ", "\ncat "+image+` >"$TMPDIR"/store.img`+"\nexec ", 1)
	must(t, os.WriteFile(l.script, []byte(made), 0o755))
	l.save(t)
	g, said := l.machine(t, warm.Options{Mode: warm.Require})
	succeed(t, g, "test -e /run/current-system/etc/hostname")
	said.find(t, "started warm, ")

	f, err := os.OpenFile(image, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("x")
	must(t, err)
	l.refused(t, "files that QEMU was given have changed since it was saved: @state@/store.img")
}

// Files that QEMU finds in its working directory are compared as all others.
func TestRelativeFiles(t *testing.T) {
	l := newLab(t, "mini")
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("one\n"), 0o600))
	l.edit(t, func(text string) string {
		text = strings.Replace(text, "\nexec ", "\ncp "+secret+" secret\nexec ", 1)
		return strings.Replace(text, ` $QEMU_OPTS "$@"`, ` -fw_cfg name=opt/secret,file=./secret $QEMU_OPTS "$@"`, 1)
	})
	l.save(t)
	g, said := l.machine(t, warm.Options{Mode: warm.Require})
	succeed(t, g, "true")
	said.find(t, "started warm, ")
	must(t, os.WriteFile(secret, []byte("two\n"), 0o600))
	l.refused(t, "files that QEMU was given have changed since it was saved: @state@/secret")
}

// storeImageScript builds the start script of testdata/store-image.nix.
func storeImageScript(t *testing.T) string {
	t.Helper()
	guesttest.StartScript(t, guesttest.Guests["mini"]) // where there are no guests, this is skipped, too
	if os.Getenv("NIX_CONFIG") == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("NIX_CONFIG is not set")
		}
		t.Skip("NIX_CONFIG is not set; nix/offline/env.sh does")
	}
	cmd := exec.CommandContext(t.Context(), "nix-build", "testdata/store-image.nix", "--no-out-link")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, &stderr)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "bin/run-machine-vm")
}

// A machine with useNixStoreImage, whose start script has the image of the store as a
// drive that QEMU may write to, is saved as long as nothing is written to it.
func TestStoreImage(t *testing.T) {
	l := &lab{script: storeImageScript(t), store: warm.Store{Dir: filepath.Join(t.TempDir(), "states")}}
	if text, err := os.ReadFile(l.script); err != nil || !strings.Contains(string(text), `file="$TMPDIR"/store.img,format=raw `) {
		t.Fatalf("a start script of another kind than nixpkgs': %v\n%s", err, text)
	}
	for what, command := range map[string]string{
		// Nothing is in the first block of an erofs.
		"the guest": "command:printf x | dd of=/dev/vdb conv=notrunc,fsync",
		// What it has in its cache is written back before it is saved.
		"the guest, before it syncs": "command:printf x >/dev/vdb",
	} {
		t.Run("written by "+what, func(t *testing.T) {
			ready, err := warm.ParseReady(command)
			must(t, err)
			g, _ := l.machine(t, warm.Options{Mode: warm.Require, Save: true, Ready: ready})
			err = g.Start(t.Context(), g.Boot)
			if err == nil || !strings.Contains(err.Error(), "it cannot be saved: @state@/store.img has changed") {
				t.Errorf("error %v", err)
			}
			if g.Machine.Running() {
				t.Error("the machine runs")
			}
		})
	}
	l.save(t)
	g, said := l.machine(t, warm.Options{Mode: warm.Require})
	succeed(t, g, "echo 3 >/proc/sys/vm/drop_caches; test -e /run/current-system/etc/hostname")
	said.find(t, "started warm, ")
	// The image is this machine's own.
	succeed(t, g, "printf x | dd of=/dev/vdb conv=notrunc,fsync")
	must(t, g.Machine.Release())
	g, said = l.machine(t, warm.Options{Mode: warm.Require})
	succeed(t, g, "true")
	said.find(t, "started warm, ")
}

// A guest under load is saved and restored as any other.
func TestUnderLoad(t *testing.T) {
	l := newLab(t, "mini")
	ready, err := warm.ParseReady("command:{ setsid yes & setsid dd if=/dev/vda of=/dev/null & } </dev/null >/dev/null 2>&1; sleep 0.5")
	must(t, err)
	g, said := l.machine(t, warm.Options{Mode: warm.Require, Save: true, Ready: ready})
	begin := succeed(t, g, "cat /proc/uptime")
	said.find(t, "started warm, ")
	time.Sleep(200 * time.Millisecond)
	if now := succeed(t, g, "cat /proc/uptime"); now == begin {
		t.Errorf("the guest's time stands still at %q", now)
	}
}

// A TPM has a state that is not QEMU's.
func TestTPM(t *testing.T) {
	swtpm, err := exec.LookPath("swtpm")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "tpm")
	tpm := exec.CommandContext(t.Context(), swtpm, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+socket)
	must(t, tpm.Start())
	t.Cleanup(func() { _ = tpm.Wait() }) // it ends with the test's context
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("swtpm does not listen")
		}
	}
	l := newLab(t, "mini")
	g, _ := l.machine(t, warm.Options{Mode: warm.Require, Save: true})
	g.Boot.Env = append(g.Boot.Env, "QEMU_OPTS=-chardev socket,id=tpm,path="+socket+" -tpmdev emulator,id=tpm0,chardev=tpm -device tpm-tis,tpmdev=tpm0")
	if err := g.Start(t.Context(), g.Boot); err == nil || !strings.Contains(err.Error(), "it has a TPM") {
		t.Error(err)
	}
}
