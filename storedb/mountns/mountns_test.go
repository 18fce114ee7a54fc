package mountns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar"
	"vm-prebuild/storedb"
)

// optionsEnv has the options of a program that calls Run, which this executable
// then is.
const optionsEnv = "MOUNTNS_TEST_OPTIONS"

func TestMain(m *testing.M) {
	Main()
	if os.Getenv(probeEnv) != "" {
		if err := errors.Join(restrict(os.Getenv(seccompEnv)), Probe(context.Background())); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	if text := os.Getenv(optionsEnv); text != "" {
		os.Exit(program(text))
	}
	os.Exit(m.Run())
}

// probeEnv makes this executable a program that calls Probe.
const probeEnv = "MOUNTNS_TEST_PROBE"

// request is those Options that a test chooses.
type request struct {
	ClosureInfo, From string
	Method            Method
	Store             string
	Command           []string
	ReadOnly          []string
	PIDNamespace      bool
	Collect           string // a store path, whose files are then printed
}

// program is the smallest program that calls Run.
func program(options string) int {
	var r request
	if err := errors.Join(restrict(os.Getenv(seccompEnv)), os.Unsetenv(optionsEnv), json.Unmarshal([]byte(options), &r)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	o := Options{
		ClosureInfo: r.ClosureInfo, From: r.From, Method: r.Method, Store: r.Store, Command: r.Command,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: signals,
		ReadOnly: r.ReadOnly, PIDNamespace: r.PIDNamespace,
	}
	if r.Collect != "" {
		o.Collect = func(w *Written) error {
			text, err := os.ReadFile(w.Path(r.Collect))
			fmt.Printf("collected %s", text)
			return err
		}
	}
	code, err := Run(context.Background(), o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 3
		if e := (interface{ ExitCode() int })(nil); errors.As(err, &e) {
			code = e.ExitCode()
		}
	}
	return code
}

// Names of store paths, and of one that is in the source but not in the closure.
const (
	dirName   = "11111111111111111111111111111111-dir"
	fileName  = "22222222222222222222222222222222-file"
	longName  = "22222222222222222222222222222223-long" // a file
	linkName  = "33333333333333333333333333333333-link"
	extraName = "44444444444444444444444444444444-extra"
)

// fixture is a store with a closure and more, and a place for scratch
// directories. Any user may read the one and write to the other.
type fixture struct {
	source, info, tmp string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{source: filepath.Join(dir, "source"), info: filepath.Join(dir, "info"), tmp: filepath.Join(dir, "tmp")}
	store := filepath.Join(f.source, "nix/store")
	for _, d := range []string{store + "/" + dirName + "/bin", store + "/" + extraName, f.info, f.tmp} {
		check(t, os.MkdirAll(d, 0o755))
	}
	check(t, os.Chmod(filepath.Dir(dir), 0o755))
	check(t, os.Chmod(f.tmp, 0o777|fs.ModeSticky))
	check(t, os.WriteFile(store+"/"+dirName+"/bin/hello", []byte("#!/bin/sh\necho hello\n"), 0o555))
	check(t, os.WriteFile(store+"/"+fileName, []byte("a file"), 0o444))
	check(t, os.WriteFile(store+"/"+longName, bytes.Repeat([]byte("0123456789abcdef"), 1<<16), 0o444))
	check(t, os.Symlink("/nix/store/"+dirName, store+"/"+linkName))
	var registration, paths strings.Builder
	for _, name := range []string{dirName, fileName, longName, linkName} {
		hash, size, err := nar.Hash(t.Context(), store+"/"+name)
		check(t, err)
		fmt.Fprintf(&registration, "/nix/store/%s\n%s\n%d\n\n0\n", name, storedb.Hash(hash), size)
		fmt.Fprintf(&paths, "/nix/store/%s\n", name)
	}
	check(t, os.WriteFile(f.info+"/registration", []byte(registration.String()), 0o644))
	check(t, os.WriteFile(f.info+"/store-paths", []byte(paths.String()), 0o644))
	return f
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// missing ends a test for lack of something that CI must have.
func missing(t *testing.T, why ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why...)
	}
	t.Skip(why...)
}

// user is who calls Run.
type user struct {
	name string
	uid  int
}

// nobody is a user without privileges.
const nobody = 65534

// users are root, if these tests are run by root, and a user without privileges.
func users(t *testing.T) []user {
	t.Helper()
	all := []user{{"unprivileged", nobody}}
	if os.Geteuid() != 0 {
		all[0].uid = os.Geteuid()
	}
	probe := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^$")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS}
	if err := probe.Run(); err != nil {
		missing(t, "no user namespaces: ", err)
	}
	if os.Geteuid() == 0 {
		all = append(all, user{"root", 0})
	}
	return all
}

// command is a program that calls Run.
func (f *fixture) command(t *testing.T, u user, r request) *exec.Cmd {
	t.Helper()
	r.ClosureInfo, r.From = f.info, f.source
	text, err := json.Marshal(r)
	check(t, err)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), optionsEnv+"="+string(text), "TMPDIR="+f.tmp)
	cmd.Dir = "/"
	if u.uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.uid)}}
	}
	return cmd
}

// run calls Run in a program of its own.
func (f *fixture) run(t *testing.T, u user, r request) (code int, stdout, stderr string) {
	t.Helper()
	cmd := f.command(t, u, r)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// shell runs a shell script that must succeed.
func (f *fixture) shell(t *testing.T, u user, r request, script string) string {
	t.Helper()
	r.Command = []string{"sh", "-euc", script}
	code, stdout, stderr := f.run(t, u, r)
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, stdout, stderr)
	}
	f.checkClean(t)
	return stdout
}

// checkClean makes sure that nothing is left behind.
func (f *fixture) checkClean(t *testing.T) {
	t.Helper()
	if left := names(t, f.tmp); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	check(t, err)
	var all []string
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

// contents is all that there is in the source.
func (f *fixture) contents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	check(t, filepath.WalkDir(f.source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		text := ""
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			check(t, err)
			text = string(data)
		case info.Mode().Type() == fs.ModeSymlink:
			text, err = os.Readlink(path)
			check(t, err)
		}
		st := info.Sys().(*syscall.Stat_t)
		all[path] = fmt.Sprint(info.Mode(), st.Uid, st.Gid, st.Ino, info.ModTime().UnixNano(), st.Ctim, text)
		return nil
	}))
	return all
}

// each runs a test for all users and methods.
func each(t *testing.T, test func(t *testing.T, f *fixture, u user, method Method)) {
	for _, u := range users(t) {
		for _, method := range []Method{MethodOverlay, MethodBind} {
			t.Run(u.name+"/"+string(method), func(t *testing.T) {
				test(t, newFixture(t), u, method)
			})
		}
	}
}

func TestView(t *testing.T) {
	each(t, func(t *testing.T, f *fixture, u user, method Method) {
		before := f.contents(t)
		got := f.shell(t, u, request{Method: method}, `
			cd $NIX_REMOTE/nix/store
			ls -1
			wc -c < `+longName+`
			cat `+fileName+`; echo
			`+dirName+`/bin/hello
			readlink `+linkName+`
			mkdir added `+extraName+`; echo x > added/file; mv added again; cat again/file
			test "$(id -u)" = `+fmt.Sprint(u.uid))
		want := dirName + "\n" + fileName + "\n" + longName + "\n" + linkName + "\n1048576\na file\nhello\n/nix/store/" + dirName + "\nx\n"
		if got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
		if diff := cmp.Diff(before, f.contents(t)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestIsolation destroys all that it can.
func TestIsolation(t *testing.T) {
	each(t, func(t *testing.T, f *fixture, u user, method Method) {
		// A store may well belong to the user who runs the command.
		check(t, filepath.WalkDir(f.source, func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(path, u.uid, u.uid))
		}))
		before := f.contents(t)
		f.shell(t, u, request{Method: method}, `
			cd $NIX_REMOTE/nix/store
			echo changed > `+fileName+` || true
			echo changed > `+longName+` || true
			chmod -R 777 . || true
			echo changed > `+fileName+` || true
			echo changed > `+dirName+`/bin/hello || true
			touch `+dirName+`/new || true
			chown -R 1:1 . || true
			mv `+dirName+` elsewhere || true
			rm -rf ./* .[!.]* || true`)
		if diff := cmp.Diff(before, f.contents(t)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestNix has Nix use the store in all the ways that it can.
func TestNix(t *testing.T) {
	if _, err := exec.LookPath("nix-store"); err != nil {
		missing(t, err)
	}
	each(t, func(t *testing.T, f *fixture, u user, method Method) {
		before := f.contents(t)
		out := f.shell(t, u, request{Method: method}, `
			exec 2>&1
			nix-store --query --requisites /nix/store/`+linkName+`
			nix-store --verify --check-contents
			nix path-info --all | wc -l
			mkdir $NIX_REMOTE/in; echo text > $NIX_REMOTE/in/text
			added=$(nix-store --add $NIX_REMOTE/in)
			cat $NIX_REMOTE$added/text
			nix-store --delete $added
			test ! -e $NIX_REMOTE$added
			test "$(nix-store --add $NIX_REMOTE/in)" = $added   # over what has been deleted
			nix-store --gc
			test ! -e $NIX_REMOTE$added
			! nix-store --delete /nix/store/`+fileName+`
			cat $NIX_REMOTE/nix/store/`+fileName)
		for _, want := range []string{"/nix/store/" + linkName + "\n", "\n4\n", "\ntext\n", "is still alive", "a file"} {
			if !strings.Contains(out, want) {
				t.Errorf("the output lacks %q:\n%s", want, out)
			}
		}
		if strings.Contains(out, "modified") || strings.Contains(out, "disappeared") {
			t.Errorf("the store is not what its database says:\n%s", out)
		}
		if diff := cmp.Diff(before, f.contents(t)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestBuild has Nix build in the store, in Nix's own sandbox.
func TestBuild(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		missing(t, err)
	}
	if out, _ := exec.CommandContext(t.Context(), "ldd", busybox).CombinedOutput(); !strings.Contains(string(out), "not a dynamic executable") {
		missing(t, busybox, " is not static")
	}
	if _, err := exec.LookPath("nix-build"); err != nil {
		missing(t, err)
	}
	each(t, func(t *testing.T, f *fixture, u user, method Method) {
		got := f.shell(t, u, request{Method: method}, `
			out=$(nix-build --quiet --no-out-link --option sandbox-paths /sh=`+busybox+` -E 'derivation {
				name = "built"; system = builtins.currentSystem; builder = "/sh"; args = [ "-c" "read -r x < $input || true; echo built of $x > $out" ];
				input = builtins.storePath "/nix/store/`+fileName+`"; }')
			cat $NIX_REMOTE$out
			nix-store --query --references $out`)
		if want := "built of a file\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestExitCode(t *testing.T) {
	f := newFixture(t)
	u := users(t)[0]
	for _, tt := range []struct {
		command string
		code    int
		stderr  string // begins like this
	}{
		{"true", 0, ""},
		{"sh -c exit\t42", 42, ""},
		{"sh -c kill\t-KILL\t$$", 137, ""},
		{"no-such-command-here", 127, `run a command in the store's mount namespace: exec: "no-such-command-here": executable file not found in $PATH` + "\n"},
		{"/no/such/file", 127, `run a command in the store's mount namespace: exec: "/no/such/file": stat /no/such/file: no such file or directory`},
		{"/etc/passwd", 126, `run a command in the store's mount namespace: exec: "/etc/passwd": permission denied`},
	} {
		t.Run(tt.command, func(t *testing.T) {
			command := strings.Fields(tt.command)
			if strings.Contains(tt.command, "\t") {
				first, rest, _ := strings.Cut(tt.command, " -c ")
				command = []string{first, "-c", strings.ReplaceAll(rest, "\t", " ")}
			}
			code, stdout, stderr := f.run(t, u, request{Command: command})
			if code != tt.code || stdout != "" || !strings.HasPrefix(stderr, tt.stderr) || tt.stderr == "" && stderr != "" {
				t.Errorf("exit %d, want %d\n%s%s\nwant %s", code, tt.code, stdout, stderr, tt.stderr)
			}
		})
	}
}

// TestSignal sends the program a signal that the command is to get.
func TestSignal(t *testing.T) {
	f := newFixture(t)
	cmd := f.command(t, users(t)[0], request{Command: []string{"sh", "-c", `trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.01; done`}})
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	buf := make([]byte, 100)
	n, err := stdout.Read(buf)
	check(t, err)
	check(t, cmd.Process.Signal(unix.SIGTERM))
	for {
		m, err := stdout.Read(buf[n:])
		n += m
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	if got, code := string(buf[:n]), cmd.ProcessState.ExitCode(); got != "ready\ngot it\n" || code != 9 {
		t.Errorf("%q, exit %d", got, code)
	}
	f.checkClean(t)
}

// TestKill kills the program: the command dies too, and what is left of its
// scratch directory is removed by the next.
func TestKill(t *testing.T) {
	each(t, func(t *testing.T, f *fixture, u user, method Method) {
		cmd := f.command(t, u, request{Method: method, Command: []string{"sh", "-c", `
			mkdir $NIX_REMOTE/nix/store/added; echo x > $NIX_REMOTE/nix/store/added/file; chmod -R a-w $NIX_REMOTE/nix/store/added
			echo $$; exec cat`}})
		stdin, err := cmd.StdinPipe()
		check(t, err)
		defer stdin.Close()
		stdout, err := cmd.StdoutPipe()
		check(t, err)
		check(t, cmd.Start())
		buf := make([]byte, 20)
		if _, err := stdout.Read(buf); err != nil { // it runs
			t.Fatal(err)
		}
		check(t, cmd.Process.Kill())
		// The command has the other end, and nothing will make it close it.
		check(t, stdout.(*os.File).SetReadDeadline(time.Now().Add(10*time.Second)))
		if _, err := stdout.Read(buf); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the command lives: %v", err)
		}
		_ = cmd.Wait()
		if left := names(t, f.tmp); len(left) != 1 {
			t.Errorf("left behind: %v, want one directory", left)
		}
		f.shell(t, u, request{Method: method}, "true")
	})
}

// TestStore has the store appear where the user says.
func TestStore(t *testing.T) {
	each(t, func(t *testing.T, f *fixture, u user, method Method) {
		dir := filepath.Join(f.tmp, "here")
		check(t, os.Mkdir(dir, 0o755))
		check(t, os.Chown(dir, u.uid, u.uid))
		for _, root := range []string{dir, filepath.Join(dir, "new/root")} {
			code, stdout, stderr := f.run(t, u, request{Method: method, Store: root, Command: []string{"sh", "-euc", `
				echo $NIX_REMOTE
				cat ` + root + `/nix/store/` + fileName + `
				touch ` + root + `/nix/store/added`}})
			if want := root + "\na file"; code != 0 || stdout != want {
				t.Errorf("exit %d\n%s%s, want %s", code, stdout, stderr, want)
			}
		}
		if left := names(t, dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		check(t, os.MkdirAll(filepath.Join(dir, "nix/store/55555555555555555555555555555555-mine"), 0o755))
		code, _, stderr := f.run(t, u, request{Method: method, Store: dir, Command: []string{"true"}})
		if want := dir + "/nix/store: this store is not empty, and would be hidden\nhint: "; code != 2 || !strings.HasPrefix(stderr, want) {
			t.Errorf("exit %d, %s", code, stderr)
		}
		check(t, os.RemoveAll(dir))
		f.checkClean(t)
	})
}

// TestRealStore has programs of the closure run where they belong.
func TestRealStore(t *testing.T) {
	if _, err := os.Stat("/nix"); err != nil {
		missing(t, err)
	}
	each(t, func(t *testing.T, f *fixture, u user, method Method) {
		code, stdout, stderr := f.run(t, u, request{Method: method, Store: "/", Command: []string{"/nix/store/" + dirName + "/bin/hello"}})
		if code != 0 || stdout != "hello\n" {
			t.Errorf("exit %d\n%s%s", code, stdout, stderr)
		}
		got := f.shell(t, u, request{Method: method, Store: "/"}, `echo $NIX_REMOTE $NIX_STATE_DIR; ls /nix/store; test -e $NIX_STATE_DIR/db/db.sqlite`)
		if want := "local /nix/var/nix\n" + dirName + "\n" + fileName + "\n" + longName + "\n" + linkName + "\n"; got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
		command := "/nix/store/" + extraName + "/bin/nothing"
		code, _, stderr = f.run(t, u, request{Method: method, Store: "/", Command: []string{command}})
		if code != 127 || !strings.HasSuffix(stderr, "\nhint: only the paths of the closure are in /nix/store now; is "+command+" in it, with all that it needs?\n") {
			t.Errorf("exit %d, %s", code, stderr)
		}
	})
}

// TestAuto takes the method that costs less.
func TestAuto(t *testing.T) {
	f := newFixture(t)
	mounts := func() string {
		return strings.TrimSpace(f.shell(t, users(t)[0], request{}, `grep -c " $NIX_REMOTE/nix/store" /proc/self/mountinfo`))
	}
	if got := mounts(); got != "1" {
		t.Errorf("%s mounts for one name to hide, want an overlay", got)
	}
	for i := range 100 {
		check(t, os.Mkdir(filepath.Join(f.source, "nix/store", fmt.Sprintf("%032d-more", i)), 0o755))
	}
	if got := mounts(); got != "3" {
		t.Errorf("%s mounts for many names to hide, want single ones", got)
	}
}

func TestMissingPath(t *testing.T) {
	each(t, func(t *testing.T, f *fixture, u user, method Method) {
		check(t, os.Remove(filepath.Join(f.source, "nix/store", fileName)))
		code, _, stderr := f.run(t, u, request{Method: method, Command: []string{"true"}})
		want := filepath.Join(f.source, "nix/store") + ": " + fileName + " is in the closure but not there\nhint: "
		if code != 2 || !strings.HasPrefix(stderr, want) {
			t.Errorf("exit %d, %s", code, stderr)
		}
		f.checkClean(t)
	})
}

// TestPIDNamespace: what a command leaves running does not survive it, nor does
// anything survive the caller, and /proc is that of the namespace.
func TestPIDNamespace(t *testing.T) {
	for _, u := range users(t) {
		t.Run(u.name, func(t *testing.T) {
			f := newFixture(t) // the scratch directory of a killed one stays
			marker := fmt.Sprintf("%d.25", 10_000+os.Getpid())
			r := request{PIDNamespace: true}
			out := f.shell(t, u, r, `(setsid sleep `+marker+` >/dev/null 2>&1 &) ; echo $$; readlink /proc/self/ns/pid >/dev/null; ls /proc | grep -c '^[0-9]'`)
			if !strings.HasPrefix(out, "1\n") {
				t.Errorf("the shell is process %s", out)
			}
			checkGone(t, marker)

			r.Command = []string{"sh", "-c", `setsid sleep ` + marker + ` & echo ready; wait`}
			cmd := f.command(t, u, r)
			stdout, err := cmd.StdoutPipe()
			check(t, err)
			check(t, cmd.Start())
			if _, err := stdout.Read(make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			check(t, cmd.Process.Kill())
			_ = cmd.Wait() // killed
			checkGone(t, marker)
		})
	}
}

// checkGone waits until no process has an argument.
func checkGone(t *testing.T, argument string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, _ := exec.CommandContext(t.Context(), "pgrep", "-fx", "sleep "+argument).Output()
		if len(out) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still running: %s", out)
		}
	}
}

func TestReadOnly(t *testing.T) {
	f := newFixture(t)
	dir := t.TempDir()
	check(t, os.Chmod(dir, 0o777))
	for _, u := range users(t) {
		t.Run(u.name, func(t *testing.T) {
			f.shell(t, u, request{ReadOnly: []string{dir}}, `! echo no 2>/dev/null >`+dir+`/file`)
			if left := names(t, dir); len(left) > 0 {
				t.Errorf("written: %v", left)
			}
		})
	}
}

// TestCollect gets what a command has written, whichever way the store is made.
func TestCollect(t *testing.T) {
	f := newFixture(t)
	for _, u := range users(t) {
		for _, method := range []Method{MethodOverlay, MethodBind} {
			t.Run(u.name+"/"+string(method), func(t *testing.T) {
				r := request{Method: method, Collect: "/nix/store/55555555555555555555555555555555-new"}
				out := f.shell(t, u, r, `echo new >"$NIX_REMOTE"`+r.Collect)
				if out != "collected new\n" {
					t.Errorf("%q", out)
				}
			})
		}
	}
}

// TestProbe: where Run works, Probe says so, and where it does not, why.
func TestProbe(t *testing.T) {
	for _, u := range users(t) {
		t.Run(u.name, func(t *testing.T) {
			f := newFixture(t)
			cmd := f.command(t, u, request{})
			cmd.Env = append(os.Environ(), probeEnv+"=1")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	t.Run("no more mounts", func(t *testing.T) {
		if os.Geteuid() != 0 {
			missing(t, "not root")
		}
		// Root without the capability, in a user namespace that may make no others.
		cmd := exec.CommandContext(t.Context(), "unshare", "--user", "--map-current-user", "sh", "-c", `echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -all --inh-caps -all -- "$0"`, "/proc/self/exe")
		exe, err := os.Executable()
		check(t, err)
		cmd.Args[len(cmd.Args)-1] = exe
		cmd.Env = append(os.Environ(), probeEnv+"=1")
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 3 || !strings.Contains(string(out), "namespace") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
