package e2e

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nix-community/go-nix/pkg/nixbase32"

	"vm-prebuild/cmd/internal/synthetic"
)

// soakEnv makes tests that do something many times do it many more times.
const soakEnv = "VM_PREBUILD_SOAK"

// times is how often something is done: n times, and in a soak many.
func times(n, many int) int {
	if os.Getenv(soakEnv) != "" {
		return many
	}
	return n
}

// source is a store with a closure, registered, of which transfers are made.
type source struct {
	root, info string
	paths      []string
	narBytes   int64
}

func newSource(t *testing.T, spec synthetic.Spec) *source {
	t.Helper()
	s := &source{root: t.TempDir()}
	removable(t, s.root)
	closure, err := spec.Write(t.Context(), s.root)
	if err != nil {
		t.Fatal(err)
	}
	s.info, s.paths, s.narBytes = filepath.Join(s.root, synthetic.ClosureInfoDir), closure.StorePaths, closure.NarBytes
	registration, err := os.Open(filepath.Join(s.info, "registration"))
	if err != nil {
		t.Fatal(err)
	}
	defer registration.Close()
	load := nixCommand(t, "nix-store", "--load-db", "--store", s.root)
	load.Stdin = registration
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return s
}

// removable makes t remove a directory at its end that holds a store, whose
// directories are not writable.
func removable(t *testing.T, dir string) {
	t.Cleanup(func() {
		if out, err := exec.Command("chmod", "-R", "u+w", dir).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// nixCommand is a Nix command that asks nobody else and needs no build users.
func nixCommand(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "NIX_CONFIG=experimental-features = nix-command\nbuild-users-group =\nsubstituters =\n")
	return cmd
}

// transfer is a command that brings a closure somewhere.
type transfer struct {
	name    string
	args    []string              // of the tool, which is the first
	prepare func(dest string)     // makes what is there before; may be nil
	valid   func(dest string)     // Nix has nothing to say against what is there
	has     func(dest string) int // store paths that are there
}

const destination = "@dest@"

func (tr *transfer) command(t *testing.T, dest string) *exec.Cmd {
	args := slices.Clone(tr.args)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], destination, dest)
	}
	cmd := exec.CommandContext(t.Context(), tool(t, args[0]), args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// transfers are all commands that copy closures.
func transfers(t *testing.T, s *source) []*transfer {
	cache := filepath.Join(t.TempDir(), "cache")
	copied := nixCommand(t, "nix", "copy", "--from", s.root, "--to", "file://"+cache+"?compression=zstd", "--all")
	if out, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	store := transfer{
		valid: func(dest string) { t.Helper(); verifyStore(t, dest) },
		has:   func(dest string) int { t.Helper(); return len(validPaths(t, dest)) },
	}
	fresh, existing, fromCache := store, store, store
	fresh.name = "import"
	fresh.args = []string{"nix-closure-import", "--closure-info", s.info, "--from", s.root, "--store", destination}
	existing.name, existing.args = "import into a store of Nix", fresh.args
	existing.prepare = func(dest string) {
		if out, err := nixCommand(t, "nix-store", "--init", "--store", dest).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	fromCache.name = "import from a cache"
	fromCache.args = []string{"vm-prebuild", "import", "--from", "file://" + cache, "--no-check-sigs", "--store", destination, s.info}
	return []*transfer{&fresh, &existing, &fromCache, {
		name:  "export",
		args:  []string{"vm-prebuild", "export", "--from", s.root, "--to", destination, s.info},
		valid: func(dest string) { t.Helper(); verifyCache(t, dest) },
		has:   func(dest string) int { t.Helper(); return len(narInfos(t, dest)) },
	}}
}

// validPaths are the paths that are valid in the store at root; none if nobody
// has made it a store yet.
func validPaths(t *testing.T, root string) []string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, "nix/var/nix/db/schema")); err != nil {
		return nil
	}
	out, err := nixCommand(t, "nix", "path-info", "--store", root, "--all").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// verifyStore has Nix check all files of the store at root, if it is one yet.
func verifyStore(t *testing.T, root string) {
	t.Helper()
	if len(validPaths(t, root)) == 0 {
		return
	}
	out, err := nixCommand(t, "nix-store", "--verify", "--check-contents", "--store", root).CombinedOutput()
	for _, bad := range []string{"error", "modified", "disappeared"} {
		if err != nil || bytes.Contains(out, []byte(bad)) {
			t.Fatalf("%s is no longer valid: %v\n%s", root, err, out)
		}
	}
}

// narInfos reads the narinfos of a cache: the fields of each by their names.
func narInfos(t *testing.T, cache string) []map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cache, "*.narinfo"))
	if err != nil {
		t.Fatal(err)
	}
	var infos []map[string]string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		info := map[string]string{}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			info[key] = value
		}
		infos = append(infos, info)
	}
	return infos
}

// verifyCache checks that all narinfos of a cache tell the truth, and has Nix
// copy all that there is into a store.
func verifyCache(t *testing.T, cache string) {
	t.Helper()
	infos := narInfos(t, cache)
	if len(infos) == 0 {
		return
	}
	args := []string{"copy", "--no-check-sigs", "--from", "file://" + cache, "--to", ""}
	for _, info := range infos {
		archive, err := os.ReadFile(filepath.Join(cache, info["URL"]))
		if err != nil {
			t.Fatalf("%s: %v", info["StorePath"], err)
		}
		digest := sha256.Sum256(archive)
		if hash := "sha256:" + nixbase32.EncodeToString(digest[:]); hash != info["FileHash"] || strconv.Itoa(len(archive)) != info["FileSize"] {
			t.Fatalf("%s has %d bytes with hash %s, its narinfo says %s, %s", info["URL"], len(archive), hash, info["FileSize"], info["FileHash"])
		}
		args = append(args, info["StorePath"])
	}
	root := t.TempDir()
	removable(t, root)
	args[5] = root
	if out, err := nixCommand(t, "nix", args...).CombinedOutput(); err != nil {
		t.Fatalf("Nix cannot copy from the cache: %v\n%s", err, out)
	}
	if got := len(validPaths(t, root)); got != len(infos) {
		t.Fatalf("Nix copied %d of %d paths", got, len(infos))
	}
	verifyStore(t, root)
}

// complete runs a transfer, which must succeed and bring all there is.
func (tr *transfer) complete(t *testing.T, s *source, dest string) time.Duration {
	t.Helper()
	start := time.Now()
	if out, err := tr.command(t, dest).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	took := time.Since(start)
	tr.valid(dest)
	if got := tr.has(dest); got != len(s.paths) {
		t.Fatalf("%d of %d paths are there", got, len(s.paths))
	}
	return took
}

// newDest is where a transfer brings things.
func (tr *transfer) newDest(t *testing.T) string {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "dest")
	removable(t, filepath.Dir(dest))
	if tr.prepare != nil {
		tr.prepare(dest)
	}
	return dest
}

func smallClosure() synthetic.Spec {
	return synthetic.Spec{Paths: 80, Files: 1500, Bytes: 20_000_000, Seed: 3}
}

// TestTransferKilled kills transfers at random moments. What is there is then
// valid, and a repeated transfer completes it.
func TestTransferKilled(t *testing.T) {
	need(t, binEnv)
	s := newSource(t, smallClosure())
	for _, tr := range transfers(t, s) {
		t.Run(tr.name, func(t *testing.T) {
			whole := tr.complete(t, s, tr.newDest(t))
			kills, partial := times(4, 200), 0
			for n := range kills {
				after := time.Duration(rand.Float64() * 1.1 * float64(whole))
				t.Run(strconv.Itoa(n), func(t *testing.T) {
					t.Logf("killed after %v", after)
					dest := tr.newDest(t)
					cmd := tr.command(t, dest)
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					timer := time.AfterFunc(after, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
					_ = cmd.Wait() // killed or done
					timer.Stop()
					tr.valid(dest)
					if got := tr.has(dest); got > 0 && got < len(s.paths) {
						partial++
					}
					tr.complete(t, s, dest)
				})
			}
			t.Logf("a transfer takes %v; of %d that were killed, %d had done a part", whole, kills, partial)
		})
	}
}

// faultScript runs a command whose destination, $MOUNT/dest, is on a file system
// of its own, copies what there is then to $OUT and exits as the command did.
// What $MAKE mounts is seen by nobody else.
const faultScript = `
eval "$MAKE"
( set -e; eval "$FAULT" ) &
"$@" </dev/null
status=$?
kill $! 2>/dev/null
if [ -e "$MOUNT/dest" ]; then cp -a "$MOUNT/dest" "$OUT/dest"; fi
exit $status`

// TestTransferFaults lets file systems fail under transfers: these say so, what
// is there is valid, and a repeated transfer completes it.
func TestTransferFaults(t *testing.T) {
	need(t, binEnv)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("mounting needs root")
	}
	faults := []struct {
		name, make, fault string
		want              []string // one of these
	}{
		{"full", `mount -t tmpfs -o size=6m none "$MOUNT"`, "", []string{"no space left on device"}},
		{"no inodes", `mount -t tmpfs -o nr_inodes=90 none "$MOUNT"`, "", []string{"no space left on device"}},
		{"read-only", `mount -t tmpfs none "$MOUNT"; mkdir "$MOUNT/dest"; mount -o remount,ro "$MOUNT"`, "", []string{"read-only file system"}},
		{"turns read-only", `
			mount -t tmpfs none "$MOUNT"
			truncate -s 300M "$MOUNT/image"
			mkfs.ext4 -q "$MOUNT/image"
			mount -o loop "$MOUNT/image" "$MOUNT"`,
			// As the kernel does when it finds an error.
			`until [ "$(ls -d "$MOUNT"/dest/nix/store/*/* "$MOUNT"/dest/nar/* 2>/dev/null | wc -l)" -gt 8 ]; do kill -0 $$; done; mount -o remount,abort "$MOUNT"`,
			[]string{"read-only file system", "input/output error"}},
	}
	// Large enough that what turns read-only does so before all is over.
	s := newSource(t, synthetic.Spec{Paths: 300, Files: 9000, Bytes: 60_000_000, Seed: 3})
	for _, tr := range transfers(t, s) {
		if tr.prepare != nil {
			continue // that would not be on the file system at fault
		}
		for _, f := range faults {
			t.Run(tr.name+"/"+f.name, func(t *testing.T) {
				mount, out := t.TempDir(), t.TempDir()
				removable(t, out)
				cmd := tr.command(t, filepath.Join(mount, "dest"))
				cmd.Args = append([]string{"unshare", "--mount", "sh", "-c", faultScript, "sh", cmd.Path}, cmd.Args[1:]...)
				var err error
				if cmd.Path, err = exec.LookPath("unshare"); err != nil {
					t.Fatal(err)
				}
				cmd.Env = append(os.Environ(), "MOUNT="+mount, "OUT="+out, "MAKE="+f.make, "FAULT="+f.fault)
				text, err := cmd.CombinedOutput()
				if code := cmd.ProcessState.ExitCode(); code != 3 || !slices.ContainsFunc(f.want, func(want string) bool { return bytes.Contains(text, []byte(want)) }) {
					t.Errorf("exit code %d, want 3 and a message with %q: %v\n%s", code, f.want, err, text)
				}
				dest := filepath.Join(out, "dest")
				tr.valid(dest)
				t.Logf("%d paths were there; %s", tr.has(dest), bytes.TrimSpace(text))
				tr.complete(t, s, dest)
			})
		}
	}
}

// TestTransferMemory holds our tools to what they may take, with a closure of
// many paths and with one of large files.
func TestTransferMemory(t *testing.T) {
	need(t, binEnv)
	const limit = 256 << 20
	s := newSource(t, synthetic.Spec{Paths: 12, Files: 60, Bytes: 400_000_000, Seed: 3, Even: true})
	for _, tr := range transfers(t, s) {
		t.Run(tr.name, func(t *testing.T) {
			cmd := tr.command(t, tr.newDest(t))
			checkMemory(t, cmd, limit)
		})
	}
	t.Run("100,000 paths", func(t *testing.T) {
		root := t.TempDir()
		// In a process of its own: what is measured is no less than what this one
		// has ever used.
		generate := exec.CommandContext(t.Context(), buildBench(t), "generate", root, "--paths=100000", "--files=0", "--bytes=0", "--fake")
		if out, err := generate.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		checkMemory(t, exec.CommandContext(t.Context(), tool(t, "nix-closure-import"), "db-image",
			"--closure-info", filepath.Join(root, synthetic.ClosureInfoDir), "-o", filepath.Join(root, "image")), limit)
	})
}

func checkMemory(t *testing.T, cmd *exec.Cmd, limit int64) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	t.Logf("%d MiB", used>>20)
	if used > limit {
		t.Errorf("%d MiB, want at most %d", used>>20, limit>>20)
	}
}
