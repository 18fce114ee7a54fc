package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"vm-prebuild/prebuild/doctor"
)

// diagnose runs vm-prebuild doctor with further variables in its environment.
// Its exit code has to say the same as its report.
func diagnose(t *testing.T, cmd *exec.Cmd) map[string]doctor.Result {
	t.Helper()
	out, err := cmd.Output()
	var report doctor.Report
	if jsonErr := json.Unmarshal(out, &report); jsonErr != nil {
		t.Fatalf("%v: %v\n%s", err, jsonErr, out)
	}
	want := 0
	if !report.CanRun {
		want = 1
	}
	if code := cmd.ProcessState.ExitCode(); code != want || report.CanRun != (report.Count(doctor.Missing) == 0) {
		t.Errorf("exit code %d, can run: %t, %d missing", code, report.CanRun, report.Count(doctor.Missing))
	}
	checks := map[string]doctor.Result{}
	for _, c := range report.Checks {
		checks[c.Check] = c
		if c.Finding == "" || c.State != doctor.OK && c.Remedy == "" && !strings.Contains(c.Finding, "no answer") {
			t.Errorf("%+v", c)
		}
	}
	return checks
}

func doctorCommand(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, "vm-prebuild"), "doctor", "--json")
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// What the doctor says of this machine is what other tools say.
func TestDoctor(t *testing.T) {
	need(t, manifestEnv) // made by a Nix that is set up
	checks := diagnose(t, doctorCommand(t))
	expect := func(check string, fine bool, finding string) {
		t.Helper()
		got, state := checks[check], doctor.Warning
		if fine {
			state = doctor.OK
		}
		if got.State != state || !strings.Contains(got.Finding, finding) {
			t.Errorf("%+v, want it %s and to say %q", got, state, finding)
		}
	}
	for _, c := range checks {
		if c.State == doctor.Missing {
			t.Errorf("other tests run here, but: %+v", c)
		}
	}
	version, err := command(t, ".", "nix", "--version")
	if err != nil {
		t.Fatal(err)
	}
	expect("nix", true, "Nix "+regexp.MustCompile(`\d+\.\d+`).FindString(version)+" is")
	expect("store", true, "")
	expect("system-features", true, "nixos-test and kvm")
	expect("experimental-features", true, "nix-command and flakes")
	expect("sandbox", true, "")
	expect("sandbox-paths", true, fmt.Sprintf("%d paths", len(strings.Fields(regexp.MustCompile(`extra-sandbox-paths = .*`).FindString(os.Getenv("NIX_CONFIG"))))-2))
	emulator, err := command(t, ".", "qemu-system-x86_64", "--version")
	if err != nil {
		t.Fatal(err)
	}
	expect("qemu", true, "QEMU "+regexp.MustCompile(`\d+\.\d+\.\d+`).FindString(emulator))
	expect("cores", runtime.GOMAXPROCS(0) > 1, "processor")
	for check, device := range map[string]string{"tun": "/dev/net/tun", "vhost-vsock": "/dev/vhost-vsock"} {
		f, err := os.OpenFile(device, os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		expect(check, err == nil, device)
	}
}

// bootSector counts down from fifty million and then ends QEMU through its
// isa-debug-exit device, with guestStatus: a twentieth of a second of hardware.
var bootSector = []byte{
	0x66, 0xb9, 0x80, 0xf0, 0xfa, 0x02, // mov $50000000, %ecx
	0x66, 0x49, //                      1: dec %ecx
	0x75, 0xfc, //                         jnz 1b
	0xb0, 0x10, //                         mov $0x10, %al
	0xe6, 0xf4, //                         out %al, $0xf4
	0xf4, //                               hlt
}

const guestStatus = 0x10<<1 | 1

// What the doctor says of KVM is what QEMU finds.
func TestDoctorKVM(t *testing.T) {
	disk := make([]byte, 512*64)
	copy(disk, bootSector)
	disk[510], disk[511] = 0x55, 0xaa
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	runs := func(accelerator string, limit time.Duration) bool {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-machine", "pc,accel="+accelerator, "-m", "64",
			"-nodefaults", "-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
			"-drive", "file="+image+",format=raw,if=ide")
		// A guest that hangs must not outlive this process, or the thread that the
		// signal is bound to.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		exit, exited := errors.AsType[*exec.ExitError](err)
		t.Logf("%s: %v %s", accelerator, err, out)
		return exited && exit.ExitCode() == guestStatus
	}
	if !runs("tcg", time.Minute) {
		t.Fatal("the guest does not run under TCG, so it is no judge of KVM")
	}
	works := runs("kvm", 10*time.Second)
	got := diagnose(t, doctorCommand(t))["kvm"]
	if works != (got.State == doctor.OK) {
		t.Errorf("a guest runs under KVM: %t; the doctor says %+v", works, got)
	}
	if _, err := os.Stat("/dev/kvm"); err == nil && !works && !strings.Contains(got.Finding, "/dev/kvm opens, but no guest can use it") {
		t.Errorf("%+v", got)
	}
}

// A user without privileges is told of the devices that it may not open.
func TestDoctorOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("becoming another user needs root")
	}
	const nobody = 65534
	for check, device := range map[string]string{"kvm": "/dev/kvm", "tun": "/dev/net/tun"} {
		info, err := os.Stat(device)
		if err != nil || info.Mode().Perm()&0o006 != 0 {
			t.Logf("%s: any user may open it, or there is none", device)
			continue
		}
		cmd := doctorCommand(t, "HOME=/nonexistent")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		got := diagnose(t, cmd)[check]
		if got.State != doctor.Warning || !strings.Contains(got.Finding, device+" may not be opened by nobody") {
			t.Errorf("%+v", got)
		}
	}
}

// What the doctor calls missing makes Nix refuse to build, and what it says mends
// that, with the real Nix.
func TestDoctorRemedies(t *testing.T) {
	need(t, manifestEnv)
	dir := t.TempDir()
	file := filepath.Join(dir, "test.nix")
	builds := func(env string, words ...string) (string, error) {
		t.Helper()
		// A derivation of its own each time: what is built is never refused.
		text := fmt.Sprintf(`derivation { name = "doctor-%d"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; requiredSystemFeatures = [ "kvm" "nixos-test" ]; }`, time.Now().UnixNano())
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), words[0], append(words[1:], file)...)
		cmd.Env = append(os.Environ(), env)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	oldStyle := []string{"nix-build", "--no-out-link"}
	for _, c := range []struct {
		check, fault string
		state        doctor.State
		build        []string
		refusal      string
	}{
		{"system-features", "system-features = benchmark", doctor.Missing, oldStyle, "required"},
		{"system-features", "system-features = kvm", doctor.Missing, oldStyle, "required"},
		{"experimental-features", "experimental-features =", doctor.Warning, []string{"nix", "build", "--no-link", "-f"}, "experimental"},
	} {
		t.Run(c.fault, func(t *testing.T) {
			env := "NIX_CONFIG=" + os.Getenv("NIX_CONFIG") + c.fault + "\n"
			got := diagnose(t, doctorCommand(t, env))[c.check]
			line, found := strings.CutPrefix(got.Remedy, "/etc/nix/nix.conf: ")
			if got.State != c.state || !found {
				t.Fatalf("%+v", got)
			}
			if out, err := builds(env, c.build...); err == nil || !strings.Contains(out, c.refusal) {
				t.Errorf("Nix does not refuse: %v\n%s", err, out)
			}
			env += line + "\n"
			if got := diagnose(t, doctorCommand(t, env))[c.check]; got.State != doctor.OK {
				t.Errorf("mended: %+v", got)
			}
			if out, err := builds(env, c.build...); err != nil {
				t.Errorf("mended: %v\n%s", err, out)
			}
		})
	}
	// A path that is gone keeps all builds from starting.
	env := "NIX_CONFIG=" + os.Getenv("NIX_CONFIG") + "extra-sandbox-paths = /x=" + dir + "/gone\n"
	if got := diagnose(t, doctorCommand(t, env))["sandbox-paths"]; got.State != doctor.Missing || !strings.Contains(got.Finding, dir+"/gone") {
		t.Errorf("%+v", got)
	}
	if out, err := builds(env, oldStyle...); err == nil || !strings.Contains(out, dir+"/gone") {
		t.Errorf("Nix builds: %v\n%s", err, out)
	}
	// So does a daemon that is not there, and one that never answers.
	got := diagnose(t, doctorCommand(t, "NIX_REMOTE=daemon", "NIX_DAEMON_SOCKET_PATH="+dir+"/socket"))["store"]
	if got.State != doctor.Missing || !strings.Contains(got.Finding, "cannot connect to socket") {
		t.Errorf("%+v", got)
	}
	socket := filepath.Join(dir, "mute")
	mute, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	start := time.Now()
	got = diagnose(t, doctorCommand(t, "NIX_REMOTE=daemon", "NIX_DAEMON_SOCKET_PATH="+socket))["store"]
	if got.State != doctor.Missing || !strings.HasSuffix(got.Finding, "no answer within 10s") || time.Since(start) > 30*time.Second {
		t.Errorf("%v after %v", got, time.Since(start))
	}
}

// A user is trusted when a real daemon takes that user's settings.
func TestDoctorTrustedUser(t *testing.T) {
	need(t, manifestEnv)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("becoming another user needs root")
	}
	// Not below t.TempDir, which other users may not enter.
	dir, err := os.MkdirTemp("", "doctor")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	for _, trusted := range []string{"", "extra-trusted-users = nobody"} {
		socket := filepath.Join(dir, fmt.Sprintf("socket-%d", len(trusted)))
		env := append(os.Environ(), "NIX_DAEMON_SOCKET_PATH="+socket, "HOME="+dir,
			"NIX_CONFIG="+os.Getenv("NIX_CONFIG")+trusted+"\n")
		ctx, stop := context.WithCancel(t.Context())
		daemon := exec.CommandContext(ctx, "nix-daemon")
		daemon.Env = append(env, "NIX_REMOTE=local")
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if _, err := os.Stat(socket); err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("the daemon does not start")
			}
		}
		cmd := doctorCommand(t)
		cmd.Dir, cmd.Env = dir, append(env, "NIX_REMOTE=daemon")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
		checks := diagnose(t, cmd)
		if got := checks["store"]; got.State != doctor.OK || !strings.Contains(got.Finding, "(daemon)") {
			t.Errorf("%+v", got)
		}
		// What a build sees is a setting that only trusted users may make.
		build := exec.CommandContext(t.Context(), "nix-build", "--no-out-link", "--option", "extra-sandbox-paths", "/of-client="+dir, "--expr",
			fmt.Sprintf(`derivation { name = "trust-%d"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "test -e /of-client && echo > $out" ]; }`, time.Now().UnixNano()))
		build.Dir, build.Env, build.SysProcAttr = cmd.Dir, cmd.Env, cmd.SysProcAttr
		out, err := build.CombinedOutput()
		if (err == nil) != (trusted != "") || err != nil && !strings.Contains(string(out), "failed with exit code 1") {
			t.Errorf("%q: %v\n%s", trusted, err, out)
		}
		if got := checks["trusted-user"]; (got.State == doctor.OK) != (err == nil) || !strings.Contains(got.Finding, "nobody") {
			t.Errorf("%+v", got)
		}
		stop()
		_ = daemon.Wait() // killed
	}
}

// Which file systems share data between files is tried, not guessed.
func TestDoctorReflink(t *testing.T) {
	need(t, binEnv)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("mounting needs root")
	}
	for _, c := range []struct {
		name, mount string
		state       doctor.State
		finding     string
	}{
		{"tmpfs", `mount -t tmpfs none "$TMPDIR"`, doctor.Warning, "it is on tmpfs"},
		{"ext4", `truncate -s 64M "$IMAGE"; mkfs.ext4 -q "$IMAGE"; mount -o loop "$IMAGE" "$TMPDIR"`, doctor.Warning, "it is on ext4"},
		{"btrfs", `truncate -s 256M "$IMAGE"; mkfs.btrfs -q "$IMAGE" >&2; mount -o loop "$IMAGE" "$TMPDIR"`, doctor.OK, "imports copy nothing"},
		{"xfs", `truncate -s 400M "$IMAGE"; mkfs.xfs -q -m reflink=1 "$IMAGE"; mount -o loop "$IMAGE" "$TMPDIR"`, doctor.OK, "imports copy nothing"},
		{"xfs without", `truncate -s 400M "$IMAGE"; mkfs.xfs -q -m reflink=0 "$IMAGE"; mount -o loop "$IMAGE" "$TMPDIR"`, doctor.Warning, "it is on xfs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := doctorCommand(t, "TMPDIR="+t.TempDir(), "IMAGE="+filepath.Join(t.TempDir(), "image"))
			cmd.Args = append([]string{"unshare", "--mount", "sh", "-ec", c.mount + `; exec "$0" "$@"`}, cmd.Args...)
			var err error
			if cmd.Path, err = exec.LookPath("unshare"); err != nil {
				t.Fatal(err)
			}
			checks := diagnose(t, cmd)
			if got := checks["tmp-reflink"]; got.State != c.state || !strings.Contains(got.Finding, c.finding) {
				t.Errorf("%+v", got)
			}
			// Small file systems have little room, which is said, too.
			if got := checks["tmp-space"]; c.name != "tmpfs" && got.State != doctor.Missing {
				t.Errorf("%+v", got)
			}
		})
	}
}
