package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHookRemoteBuilders: what is not ours goes where Nix would have sent it.
func TestHookRemoteBuilders(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		remote := filepath.Join(n.dir(), "remote")
		builders := []string{"--option", "builders", remote + " x86_64-linux - 1 1 elsewhere,nixos-test,kvm"}
		paths, log := n.mustBuild("passing otherFeature ordinary", builders...)
		wantTexts(t, log, "passing.drv' on 'vm-prebuild'")
		wantRemote(t, log, "other-feature.drv", remote)
		if got := n.query("--references", paths[0]); len(got) != 2 {
			t.Errorf("references of %s: %v", paths[0], got)
		}
		if built := validPaths(t, remote); len(built) == 0 {
			t.Error("nothing was built remotely")
		}
		// A builder that does not answer is passed over, as without us.
		dead := []string{"--option", "builders", "/proc/none x86_64-linux - 1 9 elsewhere,nixos-test ; " + builders[2]}
		_, log = n.mustBuild("otherFeature", append(dead, "--argstr", "salt", "dead")...)
		wantTexts(t, log, "cannot build on '")
		wantRemote(t, log, "other-feature.drv", remote)
		// Without KVM, a test is not ours either.
		n.flags("--tcg=deny")
		if _, err := os.Stat("/dev/kvm"); err == nil {
			n.flags("--tcg=deny", "--memory", "1") // where KVM works
		}
		_, log = n.mustBuild("passing", append(builders, "--argstr", "salt", "remote")...)
		wantTexts(t, log, "a line of the log")
		wantRemote(t, log, "passing.drv", remote)
		// Remote builders that cannot be used leave things as they were.
		n.flags("--tcg=allow")
		n.mustBuild("ordinary passing", "--argstr", "salt", "again", "--option", "builders", "/proc/none x86_64-linux - 1 1 -")
		n.checkClean()
	})
}

// wantRemote wants a derivation to be built in another store, which some versions of
// Nix name by a URL.
func wantRemote(t *testing.T, log, drv, store string) {
	t.Helper()
	if !regexp.MustCompile(regexp.QuoteMeta(drv) + `' on '(local://)?` + regexp.QuoteMeta(store) + `'`).MatchString(log) {
		t.Errorf("%s is not built on %s:\n%s", drv, store, log)
	}
}

// TestHookFlags: what is taken, and what is seen in the sandbox, is chosen.
func TestHookFlags(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		shown := filepath.Join(n.dir(), "shown")
		if err := os.Mkdir(shown, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(shown, 0o777); err != nil {
			t.Fatal(err)
		}
		n.write("shown/file", "seen\n", 0o644)
		n.flags("--tcg=allow", "--sandbox-path", shown, "--match", "^named-", "--feature", "elsewhere")
		_, log := n.mustBuild("writes named otherFeature network identity", "--argstr", "path", shown)
		wantTexts(t, log, "named-vm-check.drv' on 'vm-prebuild'", "other-feature.drv' on 'vm-prebuild'", "seen", "Read-only file system")
		if strings.Contains(log, "it can be written to") || strings.Contains(log, "ordinary.drv' on") {
			t.Error(log)
		}
		if _, err := os.Stat(filepath.Join(shown, "new")); err == nil {
			t.Error("a test has written to a directory of the host")
		}
		// The one user that there is in the sandbox is, outside, one who may only build.
		user := strconv.Itoa(n.user)
		if n.daemon {
			user = "3000[1-8]"
		}
		if !regexp.MustCompile(`1000\s+` + user + `\s+1\b`).MatchString(log) {
			t.Errorf("no user %s in\n%s", user, log)
		}

		n.flags("--tcg=allow", "--memory", "8G", "--cores", "4")
		n.mustFail("big", []string{"have 99999999 MiB of memory together, more than the 8192 MiB", "is required to build"})
		n.mustFail("wide", []string{"have 9999 cores together, more than the 4", "is required to build"})
		n.flags("--tcg=allow")
		n.mustBuild("wide")
		n.mustFail("manyUsers", []string{"uid-range needs Nix's settings auto-allocate-uids", "is required to build"})
		if n.version == "2.26" && n.user == 0 && !n.daemon {
			_, log := n.mustBuild("manyUsers", "--option", "extra-experimental-features", "auto-allocate-uids cgroups", "--option", "auto-allocate-uids", "true")
			wantTexts(t, log, "65536")
		}
		// A test that needs network devices sees them, where the machine has some.
		if _, err := os.Stat("/dev/net/tun"); err == nil {
			n.mustBuild("tunnel")
		} else {
			n.mustFail("tunnel", []string{"the feature devnet: ", "is required to build"})
		}
		n.checkClean()
	})
}

// TestHookUnusable: with options that cannot be used, and before they can be read at
// all, the hook answers, and Nix builds what it can.
func TestHookUnusable(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		for i, tt := range []struct{ flag, value, want string }{
			{"--sandbox-path", "/none", "--sandbox-path: stat /none: no such file"},
			{"--secret-key", "/none", "--secret-key: open /none: no such file"},
			{"--match", "(", "--match: error parsing regexp"},
			{"--unheard-of", "", "unknown flag --unheard-of"},
			{"--cores", "many", "--cores: expected a whole number"},
		} {
			n.flags(slices.DeleteFunc([]string{tt.flag, tt.value}, func(s string) bool { return s == "" })...)
			salt := []string{"--argstr", "salt", "unusable" + strconv.Itoa(i)}
			_, log := n.mustBuild("ordinary jobs", append(salt, "--arg", "count", "2")...)
			if n := strings.Count(log, "nothing is built here: "+tt.want); n != 1 {
				t.Errorf("%d times %q in\n%s", n, tt.want, log)
			}
			n.mustFail("passing", []string{tt.want, "is required to build"}, salt...)
			// Remote builders are there all the same.
			remote := filepath.Join(n.dir(), "remote")
			_, log = n.mustBuild("otherFeature", append(salt, "--option", "builders", remote+" x86_64-linux - 1 1 elsewhere,nixos-test")...)
			wantRemote(t, log, "other-feature.drv", remote)
		}
	})
}

// TestHookStoreElsewhere: a store in another directory is not ours to build for.
func TestHookStoreElsewhere(t *testing.T) {
	n := oneHookNix(t)
	build := func(attribute string) (string, error) {
		cmd := n.buildCommand(attribute)
		cmd.Env = append(cmd.Env, "NIX_REMOTE=local", "NIX_STORE_DIR="+filepath.Join(n.dir(), "store"), "NIX_STATE_DIR="+filepath.Join(n.dir(), "state"), "NIX_LOG_DIR="+filepath.Join(n.dir(), "log"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := build("ordinary"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	out, err := build("passing")
	if err == nil {
		t.Error("a test is built")
	}
	wantTexts(t, out, "is required to build")
}

// TestHookSigns: what is built is signed with Nix's keys, as what Nix builds is.
func TestHookSigns(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		secret := n.write("secret", "test-1:Ka/T5MFDFce9zN8JWEmUXD5ia1quqvxe9Y2QE1+V4NLu4xLwghXKHiufoh9cuiNT4Qk/cSxTqDVPGE7zNFZlFg==", 0o600)
		paths, _ := n.mustBuild("passing", "--option", "secret-key-files", secret)
		verify := n.command("nix", "store", "verify", "--sigs-needed", "1", "--trusted-public-keys", "test-1:7uMS8IIVyh4rn6IfXLojU+EJP3EsU6g1TxhO8zRWZRY=", paths[0])
		if out, err := verify.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestHookServes places results from caches instead of building.
func TestHookServes(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		cache := filepath.Join(n.dir(), "cache")
		secret := n.write("secret", "test-1:Ka/T5MFDFce9zN8JWEmUXD5ia1quqvxe9Y2QE1+V4NLu4xLwghXKHiufoh9cuiNT4Qk/cSxTqDVPGE7zNFZlFg==", 0o600)
		paths, _ := n.mustBuild("passing")
		outputs := append(n.query("--references", paths[0]), paths[0])
		if out, err := n.command("nix", "copy", "--to", "file://"+cache+"?compression=none&secret-key="+secret, paths[0]).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		forget := func() {
			t.Helper()
			args := []string{"--delete"}
			for _, path := range outputs {
				if strings.Contains(path, "-passing") {
					args = append(args, path)
				}
			}
			if out, err := n.command("nix-store", args...).CombinedOutput(); err != nil || len(args) != 3 {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
		}
		forget()
		// It needs no KVM, and no room.
		n.flags("--tcg=deny", "--memory", "1", "--cache", cache)
		served, log := n.mustBuild("passing")
		if strings.Contains(log, "a line of the log") || served[0] != paths[0] {
			t.Errorf("%v\n%s", served, log)
		}
		wantTexts(t, n.decisions(), `"event":"served"`)
		if got := n.query("--references", paths[0]); len(got) != 2 {
			t.Errorf("references: %v", got)
		}
		n.checkClean()

		// So is one behind a URL, if somebody who is trusted has signed what it has.
		server := httptest.NewServer(http.FileServer(http.Dir(cache)))
		defer server.Close()
		const key, other = "test-1:7uMS8IIVyh4rn6IfXLojU+EJP3EsU6g1TxhO8zRWZRY=", "test-2:7uMS8IIVyh4rn6IfXLojU+EJP3EsU6g1TxhO8zRWZRY="
		for _, known := range []string{other, key} {
			forget()
			n.flags("--tcg=allow", "--cache", server.URL, "--trusted-public-keys", known)
			again, log := n.mustBuild("passing")
			if built := strings.Contains(log, "a line of the log"); built != (known == other) || again[0] != paths[0] {
				t.Errorf("with %s: %v\n%s", known, again, log)
			}
			n.checkClean()
		}

		// A cache that lies is not believed, and the test is built if it can be.
		forget()
		n.flags("--tcg=deny", "--memory", "1", "--cache", cache)
		archives, err := filepath.Glob(filepath.Join(cache, "nar/*"))
		if err != nil || len(archives) == 0 {
			t.Fatal(archives, err)
		}
		for _, archive := range archives {
			text, err := os.ReadFile(archive)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(archive, []byte(strings.ReplaceAll(string(text), "nothing", "somthng")), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		log = n.mustFail("passing", []string{"failed with exit code"})
		if strings.Contains(log, "a line of the log") {
			t.Error(log)
		}
		n.flags("--tcg=allow", "--cache", cache)
		_, log = n.mustBuild("passing")
		wantTexts(t, log, "a line of the log")
		n.checkClean()
	})
}

// TestHookServesNobody kills a Nix that waits for a cache.
func TestHookServesNobody(t *testing.T) {
	eachHookNix(t, func(t *testing.T, n *hookNix) {
		cache := filepath.Join(n.dir(), "cache")
		secret := n.write("secret", "test-1:Ka/T5MFDFce9zN8JWEmUXD5ia1quqvxe9Y2QE1+V4NLu4xLwghXKHiufoh9cuiNT4Qk/cSxTqDVPGE7zNFZlFg==", 0o600)
		paths, _ := n.mustBuild("passing")
		if out, err := n.command("nix", "copy", "--to", "file://"+cache+"?compression=none&secret-key="+secret, paths[0]).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		outputs := append(n.query("--references", paths[0]), paths[0])
		outputs = slices.DeleteFunc(outputs, func(path string) bool { return !strings.Contains(path, "-passing") })
		if out, err := n.command("nix-store", append([]string{"--delete"}, outputs...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		asked := make(chan struct{}, 10)
		files := http.FileServer(http.Dir(cache))
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/nar/") {
				asked <- struct{}{}
				<-r.Context().Done() // the hook has closed the connection
				return
			}
			files.ServeHTTP(w, r)
		}))
		defer server.Close()
		n.wrapHook()
		n.flags("--cache", server.URL, "--trusted-public-keys", "test-1:7uMS8IIVyh4rn6IfXLojU+EJP3EsU6g1TxhO8zRWZRY=")
		cmd := n.buildCommand("passing")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-asked:
		case <-time.After(time.Minute):
			t.Fatal("the cache is not asked: ", n.decisions())
		}
		for _, pid := range n.builders(cmd.Process.Pid) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Error("nix-build succeeds")
		}
		n.checkNothingRuns()
		wantTexts(t, n.decisions(), "the Nix that wanted it has ended")
		n.checkClean()
	})
}

// TestHookBadInput: who is not Nix gets one line, and nothing is made.
func TestHookBadInput(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		script string
		want   string
	}{
		"no Nix":     {`exec "$@" </dev/null`, "there is no pipe for the builder's log"},
		"not a word": {`echo "GET / HTTP/1.1" | "$@" 4> >(cat)`, "build hook protocol: settings"},
		"cut off":    {`printf '\1\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0store' | "$@" 4> >(cat)`, "unexpected EOF"},
		"a path":     {`printf '\0\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0try\0\0\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0x\0\0\0\0\0\0\0\7\0\0\0\0\0\0\0/etc/pw\0\0\0\0\0\0\0\0\0' | "$@" 4> >(cat)`, "derivation: "},
	} {
		t.Run(name, func(t *testing.T) {
			store := filepath.Join(dir, strconv.Itoa(len(name)))
			cmd := exec.CommandContext(t.Context(), "bash", "-c", tt.script, "bash", tool(t, "nix-vm-build-hook"), "--store", store, "3")
			out, err := cmd.CombinedOutput()
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(lines[0], tt.want) || len(lines) != 2 || !strings.HasPrefix(lines[1], "hint: ") {
				t.Errorf("%v, want exit code 2 and one line with %q and a hint:\n%s", err, tt.want, out)
			}
			if builds, err := os.ReadDir(filepath.Join(store, "builds")); err == nil && len(builds) > 0 {
				t.Error(fmt.Sprint(builds))
			}
		})
	}
}
