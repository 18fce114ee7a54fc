package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vm-prebuild/prebuild"
	"vm-prebuild/testrun/accel"
)

var update = flag.Bool("update", false, "rewrite the golden file")

// goodSettings are those of a Nix with which all is well.
const goodSettings = `auto-allocate-uids = true
build-users-group = nixbld
builders = @/etc/nix/machines
experimental-features = auto-allocate-uids cgroups flakes nix-command
sandbox = true
sandbox-paths = /bin/sh=/bin/busybox /dev/net?
system-features = benchmark kvm nixos-test uid-range
trusted-users = root @wheel
`

// settings parses lines such as "sandbox = true".
func settings(text string) prebuild.Settings {
	s := prebuild.Settings{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, " = ")
		s[name] = strings.TrimSpace(value)
	}
	return s
}

// fake is a machine with which all is well, seen by a user of the group wheel,
// that a test spoils.
type fake struct {
	*machine
	t           *testing.T
	nixSettings prebuild.Settings
	nixVersion  prebuild.Version
	info        prebuild.StoreInfo
	volumes     map[string]volumeInfo
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{
		t:           t,
		nixSettings: settings(goodSettings),
		nixVersion:  prebuild.Version{Major: 2, Minor: 26},
		info:        prebuild.StoreInfo{URL: "daemon"},
		volumes:     map[string]volumeInfo{"/nix/store": {freeMiB: 100 << 10}, "/tmp": {freeMiB: 50 << 10}, "/var/tmp": {freeMiB: 60 << 10}},
	}
	f.machine = &machine{
		root: t.TempDir(), user: "alice", userGroups: []string{"users", "wheel"}, storeDir: "/nix/store", tmpDir: "/tmp", confDir: "/etc/nix",
		cores:     func() int { return 8 },
		memoryMiB: func() (int, error) { return 16 << 10, nil },
		kvm:       func(context.Context) accel.Result { return accel.Result{KVM: true} },
		qemu:      func(context.Context) (string, string) { return "/usr/bin/qemu-system-x86_64", "10.0.2" },
		version:   func(context.Context) (prebuild.Version, error) { return f.nixVersion, nil },
		settings:  func(context.Context) (prebuild.Settings, error) { return f.nixSettings, nil },
		ping:      func(context.Context) (prebuild.StoreInfo, error) { return f.info, nil },
		volume: func(dir string) (volumeInfo, error) {
			v, ok := f.volumes[dir]
			if !ok {
				return v, os.ErrNotExist
			}
			return v, nil
		},
		reflink: func(string) (bool, string, error) { return true, "btrfs", nil },
	}
	f.file("dev/kvm", "", 0o666)
	f.file("dev/net/tun", "", 0o666)
	f.file("dev/vhost-vsock", "", 0o666)
	f.file("bin/busybox", "", 0o755)
	f.file("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu vmx sse\n", 0o444)
	f.file("etc/group", "root:x:0:\nkvm:x:992:alice\nnixbld:x:30000:nixbld1,nixbld2\n", 0o644)
	return f
}

// file makes a file of the machine.
func (f *fake) file(name, text string, mode os.FileMode) {
	f.t.Helper()
	path := f.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	f.remove(name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		f.t.Fatal(err)
	}
}

func (f *fake) remove(name string) {
	f.t.Helper()
	if err := os.RemoveAll(f.path(name)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fake) set(line string) {
	name, value, _ := strings.Cut(line, " = ")
	f.nixSettings[name] = value
}

func TestAllIsWell(t *testing.T) {
	report := examine(t.Context(), newFake(t).machine, checks, deadline)
	for _, c := range report.Checks {
		if c.State != OK || c.Remedy != "" || c.Finding == "" {
			t.Errorf("%+v", c)
		}
	}
	// With auto-allocated users there are no build users to look at, and Nix has its own hook.
	if !report.CanRun || len(report.Checks) != len(checks)-3 {
		t.Errorf("%d checks, can run: %t", len(report.Checks), report.CanRun)
	}
}

func TestChecks(t *testing.T) {
	oldKVM := accel.Result{Reason: "each instruction is emulated"}
	for _, c := range []struct {
		name            string
		spoil           func(f *fake)
		check           string
		state           State
		finding, remedy string // parts of what is said
	}{
		{"no KVM", func(f *fake) { f.remove("dev/kvm") }, "kvm", Warning, "there is no /dev/kvm, so machines run under TCG", "modprobe kvm_intel"},
		{"no KVM of AMD", func(f *fake) { f.remove("dev/kvm"); f.file("proc/cpuinfo", "x\nflags : svm\n", 0o444) }, "kvm", Warning, "there is no", "modprobe kvm_amd"},
		{"no KVM in a virtual machine", func(f *fake) { f.remove("dev/kvm"); f.file("proc/cpuinfo", "x\nflags : hypervisor\n", 0o444) }, "kvm", Warning, "there is no", "nested virtualisation in the host"},
		{"no KVM at all", func(f *fake) { f.remove("dev/kvm"); f.remove("proc/cpuinfo") }, "kvm", Warning, "there is no", "firmware"},
		{"KVM that does not run", func(f *fake) { f.kvm = func(context.Context) accel.Result { return oldKVM } }, "kvm", Warning,
			"/dev/kvm opens, but no guest can use it, so machines run under TCG, several times slower; each instruction is emulated", "nested"},
		{"KVM that is a directory", func(f *fake) { f.remove("dev/kvm"); f.file("dev/kvm/x", "", 0o666) }, "kvm", Warning, "may not be opened by alice", "udevadm trigger"},

		{"no Nix", func(f *fake) {
			f.version = func(context.Context) (prebuild.Version, error) { return prebuild.Version{}, prebuild.ErrNoNix }
		}, "nix", Missing, "there is no nix command in PATH", "install Nix 2.8 or newer"},
		{"a Nix that crashes", func(f *fake) {
			f.version = func(context.Context) (prebuild.Version, error) {
				return prebuild.Version{}, errors.New("exit status 127")
			}
		}, "nix", Missing, "nix does not work: exit status 127", "install"},
		{"an old Nix", func(f *fake) { f.nixVersion = prebuild.Version{Major: 2, Minor: 7} }, "nix", Missing, "Nix 2.7 is older than 2.8", "install"},
		{"bad settings", func(f *fake) {
			f.settings = func(context.Context) (prebuild.Settings, error) { return nil, errors.New("syntax error") }
		}, "nix", Missing, "does not show its settings: syntax error", "show-config"},

		{"no daemon", func(f *fake) {
			f.ping = func(context.Context) (prebuild.StoreInfo, error) {
				return prebuild.StoreInfo{}, errors.New("cannot connect to socket")
			}
		}, "store", Missing, "cannot connect to socket", "systemctl restart nix-daemon"},
		{"a store that is broken", func(f *fake) {
			f.ping = func(context.Context) (prebuild.StoreInfo, error) {
				return prebuild.StoreInfo{}, &prebuild.NixError{Message: "database disk image is malformed"}
			}
		}, "store", Missing, "malformed", "store ping"},

		{"a user that is not trusted", func(f *fake) { f.set("trusted-users = root bob @admin") }, "trusted-user", Warning, "does not trust alice", "extra-trusted-users = alice"},
		{"a user that the daemon distrusts", func(f *fake) { f.info.Trusted = new(bool) }, "trusted-user", Warning, "does not trust alice", "/etc/nix/nix.conf: "},
		{"everybody is trusted", func(f *fake) { f.set("trusted-users = *") }, "trusted-user", OK, "trusts alice", ""},
		{"the user itself is trusted", func(f *fake) { f.set("trusted-users = alice") }, "trusted-user", OK, "trusts alice", ""},
		{"no daemon to be trusted by", func(f *fake) { f.info.URL = "local"; f.set("trusted-users = ") }, "trusted-user", "", "", ""},

		{"build users", func(f *fake) { f.set("auto-allocate-uids = false") }, "build-users", OK, "2 users", ""},
		{"no group of build users", func(f *fake) { f.set("auto-allocate-uids = false"); f.file("etc/group", "root:x:0:\n", 0o644) },
			"build-users", Missing, "nixbld, which does not exist", "groupadd --system nixbld"},
		{"no build users", func(f *fake) { f.set("auto-allocate-uids = false"); f.file("etc/group", "nixbld:x:30000:\n", 0o644) },
			"build-users", Missing, "nixbld, which has none", "useradd"},
		{"a store of one's own", func(f *fake) { f.set("auto-allocate-uids = false"); f.info.URL = "local"; f.remove("etc/group") }, "build-users", "", "", ""},
		{"KVM for builds as oneself", func(f *fake) { f.set("auto-allocate-uids = false"); f.info.URL = "local"; f.file("dev/kvm", "", 0o600) }, "kvm-in-builds", "", "", ""},
		{"root's store", func(f *fake) {
			f.set("auto-allocate-uids = false")
			f.info.URL, f.isRoot = "local", true
			f.remove("etc/group")
		}, "build-users", Missing, "does not exist", "groupadd"},

		{"KVM for build users", func(f *fake) { f.set("auto-allocate-uids = false") }, "kvm-in-builds", OK, "may open /dev/kvm", ""},
		{"KVM not for build users", func(f *fake) { f.set("auto-allocate-uids = false"); f.file("dev/kvm", "", 0o660) }, "kvm-in-builds", Warning,
			"/dev/kvm may not be opened by nixbld1", `MODE="0666"`},
		{"KVM for root only", func(f *fake) { f.set("auto-allocate-uids = false"); f.file("dev/kvm", "", 0o600) }, "kvm-in-builds", Warning, "nixbld1", "udevadm"},

		{"no nix-command", func(f *fake) { f.set("experimental-features = flakes") }, "experimental-features", Warning, "need the experimental features nix-command;", "extra-experimental-features = nix-command"},
		{"no flakes on NixOS", func(f *fake) { f.set("experimental-features = "); f.file("etc/NIXOS", "", 0o644) }, "experimental-features", Warning, "nix-command flakes",
			`configuration.nix: nix.settings.extra-experimental-features = [ "nix-command" "flakes" ];`},

		{"no kvm feature", func(f *fake) { f.set("system-features = nixos-test") }, "system-features", Missing, "lack kvm", "/etc/nix/nix.conf: extra-system-features = kvm"},
		{"no features, with a daemon", func(f *fake) { f.set("system-features = "); f.file("nix/var/nix/daemon-socket/socket", "", 0o666) }, "system-features", Missing, "lack nixos-test kvm",
			"extra-system-features = nixos-test kvm # and systemctl restart nix-daemon"},
		{"a builder with the features", func(f *fake) {
			f.set("system-features = ")
			f.file("etc/nix/machines", "# comment\nssh://arm aarch64-linux,riscv64-linux - 1 1 kvm,nixos-test\nssh://small x86_64-linux,aarch64-linux - 1 1 kvm\nssh://big i686-linux,x86_64-linux,aarch64-linux - 8 2 kvm,big-parallel nixos-test # fast\n", 0o644)
		}, "system-features", OK, "built by ssh://big", ""},
		{"no features, but our hook", func(f *fake) {
			f.set("system-features = ")
			f.set("build-hook = /usr/bin/nix-vm-build-hook --memory 12G")
		}, "system-features", OK, "nix-vm-build-hook is asked", ""},
		{"our hook", func(f *fake) { f.set("build-hook = /nix/store/x-vm-build-hook") }, "build-hook", OK, "the build hook", ""},
		{"a builder of this system", func(f *fake) { f.set("system-features = "); f.set("builders = ssh://same - - 1 1 kvm,nixos-test") }, "system-features", OK, "built by ssh://same", ""},
		{"builders without the features", func(f *fake) {
			f.set("system-features = ")
			f.set("builders = ssh://small x86_64-linux,aarch64-linux - 1 1 kvm ; ssh://short x86_64-linux")
		}, "system-features", Missing, "refuses", "extra-system-features"},

		{"no uid-range", func(f *fake) {
			f.set("system-features = kvm")
			f.set("experimental-features = cgroups")
			f.set("auto-allocate-uids = false")
		}, "uid-range", Warning, "tests with containers",
			"/etc/nix/nix.conf: extra-experimental-features = auto-allocate-uids\n/etc/nix/nix.conf: auto-allocate-uids = true\n/etc/nix/nix.conf: extra-system-features = uid-range"},
		{"no uid-range on NixOS", func(f *fake) { f.set("auto-allocate-uids = false"); f.file("etc/NIXOS", "", 0o644) }, "uid-range", Warning, "", "configuration.nix: nix.settings.auto-allocate-uids = true;"},
		{"a Nix before uid-range", func(f *fake) { f.nixVersion.Minor = 11 }, "uid-range", Warning, "does not know", "2.12"},

		{"relaxed sandbox", func(f *fake) { f.set("sandbox = relaxed") }, "sandbox", Warning, "outside of the sandbox", "sandbox = true"},
		{"no sandbox", func(f *fake) { f.set("sandbox = false") }, "sandbox", Warning, "without a sandbox", "sandbox = true"},
		{"no sandbox paths without a sandbox", func(f *fake) { f.set("sandbox = false") }, "sandbox-paths", "", "", ""},
		{"a sandbox path that is gone", func(f *fake) { f.set("sandbox-paths = /bin/sh=/bin/busybox /opt/x=/gone /opt?") }, "sandbox-paths", Missing, "/gone", "remove /opt/x=/gone"},
		{"an optional sandbox path that is gone", func(f *fake) { f.set("sandbox-paths = /gone? /x=/gone?") }, "sandbox-paths", OK, "", ""},
		{"no /dev/net in the sandbox", func(f *fake) { f.set("sandbox-paths = /dev/network") }, "devnet", Warning, "do not see /dev/net", "extra-sandbox-paths = /dev/net"},

		{"no TAP", func(f *fake) { f.remove("dev/net/tun") }, "tun", Warning, "there is no /dev/net/tun", "modprobe tun"},
		{"a TAP that does not open", func(f *fake) { f.remove("dev/net/tun"); f.file("dev/net/tun/x", "", 0o600) }, "tun", Warning, "/dev/net/tun does not open", "modprobe tun"},
		{"no vsock", func(f *fake) { f.remove("dev/vhost-vsock") }, "vhost-vsock", Warning, "there is no /dev/vhost-vsock", "modprobe vhost_vsock"},

		{"no QEMU", func(f *fake) { f.qemu = func(context.Context) (string, string) { return "", "" } }, "qemu", Warning, "in PATH", "qemu"},
		{"a QEMU that does not run", func(f *fake) { f.qemu = func(context.Context) (string, string) { return "/x/qemu", "" } }, "qemu", Warning, "/x/qemu does not run", "--version"},
		{"one processor", func(f *fake) { f.cores = func() int { return 1 } }, "cores", Warning, "one processor", "second processor"},
		{"little memory", func(f *fake) { f.memoryMiB = func() (int, error) { return 4095, nil } }, "memory", Warning, "4095 MiB", "4096 MiB"},
		{"no memory", func(f *fake) { f.memoryMiB = func() (int, error) { return 1023, nil } }, "memory", Missing, "1023 MiB", "4096 MiB"},
		{"unknown memory", func(f *fake) { f.memoryMiB = func() (int, error) { return 0, errors.New("no /proc/meminfo") } }, "memory", Warning, "no /proc/meminfo", "mount"},

		{"little space", func(f *fake) { f.volumes["/nix/store"] = volumeInfo{freeMiB: 10<<10 - 1} }, "store-space", Warning, "10239 MiB", "nix-collect-garbage"},
		{"no space", func(f *fake) { f.volumes["/nix/store"] = volumeInfo{freeMiB: 1<<10 - 1} }, "store-space", Missing, "1023 MiB", "nix-collect-garbage"},
		{"no store", func(f *fake) { delete(f.volumes, "/nix/store") }, "store-space", "", "", ""},
		{"little space for disks", func(f *fake) { f.volumes["/tmp"] = volumeInfo{freeMiB: 4<<10 - 1} }, "tmp-space", Warning, "4095 MiB", "export TMPDIR=/var/tmp"},
		{"no space for disks anywhere", func(f *fake) {
			f.volumes["/tmp"], f.volumes["/var/tmp"] = volumeInfo{freeMiB: 511}, volumeInfo{freeMiB: 510}
		}, "tmp-space", Missing, "511 MiB", "remove files from /tmp"},
		{"no /tmp", func(f *fake) { delete(f.volumes, "/tmp") }, "tmp-space", Missing, "cannot be used", "export TMPDIR=/var/tmp"},
		{"space that is memory", func(f *fake) { f.volumes["/tmp"] = volumeInfo{freeMiB: 8 << 10, inTmpfs: true} }, "tmp-space", OK, "8 GiB left, which are memory", ""},
		{"no reflinks", func(f *fake) {
			f.reflink = func(dir string) (bool, string, error) { return dir == "/tmp", "ext4", nil }
		}, "store-reflink", Warning, "/nix/store cannot share their data, for it is on ext4", "btrfs"},
		{"reflinks", func(f *fake) {
			f.reflink = func(dir string) (bool, string, error) { return dir == "/tmp", "ext4", nil }
		}, "tmp-reflink", OK, "/tmp can share", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			c.spoil(f)
			report := examine(t.Context(), f.machine, checks, deadline)
			var got Result
			for _, result := range report.Checks {
				if result.Check == c.check {
					got = result
				}
				if (result.State == OK) != (result.Remedy == "") {
					t.Errorf("a remedy belongs to what is not well, and only there: %+v", result)
				}
			}
			if got.State != c.state || !strings.Contains(got.Finding, c.finding) || !strings.Contains(got.Remedy, c.remedy) {
				t.Errorf("got %+v", got)
			}
			if report.CanRun != (report.Count(Missing) == 0) || c.state == Missing && report.CanRun {
				t.Errorf("can run: %t, with %d missing", report.CanRun, report.Count(Missing))
			}
		})
	}
}

// Whom a device belongs to decides how it is opened.
func TestKVMOfAGroup(t *testing.T) {
	f := newFake(t)
	f.set("auto-allocate-uids = false")
	f.file("dev/kvm", "", 0o660)
	if err := os.Chown(f.path("dev/kvm"), -1, 992); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err) // not root
	}
	if got := f.openKVM(); got != "usermod --append --groups kvm alice # and log in again" {
		t.Error(got)
	}
	f.file("etc/group", "kvm:x:992:nixbld1,nixbld2\nnixbld:x:30000:nixbld1,nixbld2\n", 0o644)
	if got := kvmInBuilds(t.Context(), f.machine); got.State != OK || !strings.Contains(got.Finding, "in the group kvm") {
		t.Errorf("%+v", got)
	}
	f.file("etc/group", "kvm:x:992:nixbld1\nnixbld:x:30000:nixbld1,nixbld2\n", 0o644)
	if got := kvmInBuilds(t.Context(), f.machine); got.State != Warning || !strings.Contains(got.Finding, "nixbld2") {
		t.Errorf("%+v", got)
	}
	f.file("dev/kvm", "", 0o600)
	if got := f.openKVM(); got != udevRule {
		t.Error(got)
	}
}

// Where there is no Nix, only one check says so.
func TestNoNixIsSaidOnce(t *testing.T) {
	f := newFake(t)
	noNix := prebuild.ErrNoNix
	f.version = func(context.Context) (prebuild.Version, error) { return prebuild.Version{}, noNix }
	f.settings = func(context.Context) (prebuild.Settings, error) { return nil, noNix }
	f.ping = func(context.Context) (prebuild.StoreInfo, error) { return prebuild.StoreInfo{}, noNix }
	report := examine(t.Context(), f.machine, checks, deadline)
	if report.Count(Missing) != 1 || report.Count(Warning) != 0 {
		t.Errorf("%+v", report)
	}
}

// A probe that never ends costs its check the deadline, and no other one anything.
func TestDeadline(t *testing.T) {
	forever := make(chan struct{})
	defer close(forever)
	start := time.Now()
	report := examine(t.Context(), newFake(t).machine, []check{
		{"stuck", func(context.Context, *machine) Result { <-forever; return ok("never") }},
		{"cores", cores},
	}, 50*time.Millisecond)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	want := []Result{
		{Check: "stuck", State: Warning, Finding: "it is not known: there was no answer within 50ms"},
		{Check: "cores", State: OK, Finding: "8 processors"},
	}
	if diff := cmp.Diff(want, report.Checks); diff != "" {
		t.Error(diff)
	}
}

func TestText(t *testing.T) {
	f := newFake(t)
	f.set("system-features = kvm")
	f.set("auto-allocate-uids = false")
	f.remove("dev/vhost-vsock")
	report := examine(t.Context(), f.machine, checks, deadline)
	var b bytes.Buffer
	if err := report.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/report.golden"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Error(diff)
	}

	text, err := json.Marshal(report.Checks[len(report.Checks)-1])
	if err != nil || string(text) != `{"check":"tmp-reflink","state":"ok","finding":"files in /tmp can share their data: imports copy nothing"}` {
		t.Errorf("%s, %v", text, err)
	}
}
