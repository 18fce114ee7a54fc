package storedb

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain is also the import that tests kill, or run where space is short: it
// prints a line each time progress is reported, and continues when it has read
// one.
func TestMain(m *testing.M) {
	if len(os.Args) == 6 && os.Args[1] == "import" {
		input := bufio.NewReader(os.Stdin)
		closure, err := ReadClosureInfo(os.Args[2])
		var summary Summary
		if err == nil {
			o := Options{
				Closure: closure, From: os.Args[3], Store: os.Args[4], Method: Method(os.Args[5]), Jobs: 2,
				Progress: func(p Progress) {
					fmt.Println(p.Phase, p.Paths)
					_, _ = input.ReadString('\n')
				},
			}
			if o.Method == "files" {
				o.Method, o.Files = "", &archives{c: &testClosure{root: o.From}}
			}
			summary, err = Import(context.Background(), o)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_ = json.NewEncoder(os.Stdout).Encode(summary)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// importCommand runs an import in a process of its own.
func importCommand(t *testing.T, c *testClosure, root string, prefix ...string) *exec.Cmd {
	t.Helper()
	args := append(prefix, importArgs(t, c, c.root, root, MethodAuto)...)
	return exec.CommandContext(t.Context(), args[0], args[1:]...)
}

func importArgs(t *testing.T, c *testClosure, from, root string, method Method) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{self, "import", c.info, from, root, string(method)}
}

// An import that is killed at whatever moment leaves no path valid that is not
// complete, and the next one completes it.
func TestImportKilled(t *testing.T) {
	c := newTestClosure(t)
	moments := []string{"lock 0", "place 0", "place 1", "place 7", fmt.Sprint("place ", len(c.paths)), "register 0"}
	for _, moment := range moments {
		t.Run(moment, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			killAt(t, c, root, moment)
			if state, err := readDatabaseState(root); state != noDatabase || err != nil {
				t.Error("there is a database of an incomplete import")
			}
			summary, err := Import(t.Context(), c.options(t, root))
			if err != nil {
				t.Fatal(err)
			}
			if summary.Placed != len(c.paths) {
				t.Errorf("summary %+v", summary)
			}
			checkMetadata(t, filepath.Join(root, storeDir))
			verifyStore(t, root)
		})
	}
}

// The same with a store that Nix has made.
func TestImportIntoNixStoreKilled(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	nix(t, "nix-store", "--store", root, "--init")
	for _, moment := range []string{"place 5", "register 0"} {
		killAt(t, c, root, moment)
		verifyStore(t, root)
		if valid := nix(t, "nix-store", "--store", root, "--dump-db"); valid != "" {
			t.Errorf("killed at %s, valid are:\n%s", moment, valid)
		}
	}
	if _, err := Import(t.Context(), c.options(t, root)); err != nil {
		t.Fatal(err)
	}
	checkMetadata(t, filepath.Join(root, storeDir))
	verifyStore(t, root)
}

// killAt runs an import up to the given line of progress, and kills it there.
func killAt(t *testing.T, c *testClosure, root, moment string) {
	t.Helper()
	cmd := importCommand(t, c, root)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	reached := false
	for !reached && lines.Scan() {
		if reached = lines.Text() == moment; !reached {
			fmt.Fprintln(stdin)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); !reached || err == nil {
		t.Fatalf("not killed at %q: %v", moment, err)
	}
}

// The same at random moments, again and again: VM_PREBUILD_SOAK=1 does it 200
// times for each kind of store.
func TestImportKilledAtRandom(t *testing.T) {
	rounds := 5
	if os.Getenv("VM_PREBUILD_SOAK") != "" {
		rounds = 200
	}
	c := newTestClosure(t)
	before := &testClosure{root: filepath.Join(t.TempDir(), "before"), info: t.TempDir()}
	before.add(t, "/nix/store/77777777777777777777777777777777-before", "before")
	before.write(t)
	for seed, test := range []struct {
		name   string
		store  bool // there is one
		method Method
	}{{"fresh", false, MethodCopy}, {"store", true, MethodCopy}, {"files", true, "files"}} {
		t.Run(test.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(3, uint64(seed)))
			longest := 50 * time.Millisecond // of an import that is not killed
			completed := 0
			for range rounds {
				root := filepath.Join(t.TempDir(), "root")
				if test.store {
					_, err := Import(t.Context(), before.options(t, root))
					check(t, err)
				}
				args := importArgs(t, c, c.root, root, test.method)
				cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
				start := time.Now()
				check(t, cmd.Start())
				kill := time.AfterFunc(time.Duration(random.Int64N(int64(longest))), func() { _ = cmd.Process.Kill() })
				err := cmd.Wait()
				if kill.Stop() || err == nil {
					check(t, err)
					longest = (longest + time.Since(start)) / 2
					completed++
				}
				if state, err := readDatabaseState(root); err != nil || state != noDatabase {
					check(t, err)
					verifyStore(t, root)
					nix(t, "nix", "path-info", "--all", "--store", root)
				}
				options := c.options(t, root)
				options.GCRoot = "test"
				_, err = Import(t.Context(), options)
				check(t, err)
				// What one leaves that is killed after it has registered its paths is
				// for the collector, as with Nix: locks and temporary roots.
				nix(t, "nix-store", "--store", root, "--gc")
				checkContents(t, c, root)
				checkMetadata(t, filepath.Join(root, storeDir))
				verifyStore(t, root)
				if all := nix(t, "nix", "path-info", "--all", "--store", root); strings.Count(all, "\n") < len(c.paths) {
					t.Errorf("valid are only:\n%s", all)
				}
				if left := leftovers(t, root); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				check(t, os.RemoveAll(root))
			}
			t.Logf("%d of %d imports were over before they were killed", completed, rounds)
		})
	}
}

// An import that is killed when the files have their final names and the
// database does not know of them yet.
func TestImportKilledBeforeCommit(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	nix(t, "nix-store", "--store", root, "--option", "use-sqlite-wal", "false", "--init")
	// Without a write-ahead log, a reader keeps others from committing.
	reader, err := sql.Open("sqlite3", filepath.Join(root, databaseDir, databaseName))
	check(t, err)
	defer reader.Close()
	tx, err := reader.Begin()
	check(t, err)
	_, err = tx.Exec("select count(*) from ValidPaths")
	check(t, err)

	cmd := importCommand(t, c, root)
	check(t, cmd.Start())
	for {
		names, err := filepath.Glob(filepath.Join(root, storeDir, "*-*"))
		check(t, err)
		published := slices.DeleteFunc(names, func(s string) bool { return strings.HasSuffix(s, ".lock") || strings.HasSuffix(s, tempSuffix) })
		if len(published) == len(c.paths) {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("no paths were published")
		}
	}
	check(t, cmd.Process.Kill())
	if err := cmd.Wait(); err == nil {
		t.Fatal("the import was over")
	}
	check(t, tx.Rollback())
	if valid := nix(t, "nix-store", "--store", root, "--dump-db"); valid != "" {
		t.Errorf("valid are:\n%s", valid)
	}
	verifyStore(t, root)
	if _, err := Import(t.Context(), c.options(t, root)); err != nil {
		t.Fatal(err)
	}
	checkTrees(t, c, root)
	checkMetadata(t, filepath.Join(root, storeDir))
	verifyStore(t, root)
}

// An import that runs out of space says so and leaves nothing behind, but for
// what Files have completed. A small file system in a mount namespace of its own
// needs no privileges.
func TestImportWithoutSpace(t *testing.T) {
	c := newTestClosure(t)
	store := filepath.Join(t.TempDir(), "store")
	before := &testClosure{root: filepath.Join(t.TempDir(), "before"), info: t.TempDir()}
	before.add(t, "/nix/store/77777777777777777777777777777777-before", "before")
	before.write(t)
	if _, err := Import(t.Context(), before.options(t, store)); err != nil {
		t.Fatal(err)
	}
	const script = `
		mount -t tmpfs -o $LIMIT tmpfs "$0" || exit 77
		test -z "$STORE" || cp -a "$STORE" "$0/root"
		find "$0" -mindepth 1 | sort >"$BEFORE"
		"$@" </dev/null >/dev/null
		status=$?
		find "$0" -mindepth 1 ! -name "db.sqlite-*" | sort | comm -13 "$BEFORE" -
		exit $status`
	tests := []struct {
		limit, store string
		method       Method
		left         string // pattern of what else there may be afterwards
	}{
		{"size=200k", "", MethodCopy, ""},
		{"size=700k", "", MethodCopy, ""},
		{"nr_inodes=15", "", MethodCopy, ""},
		{"nr_inodes=80", "", MethodCopy, ""},
		{"size=700k", store, MethodCopy, "/gc.lock$"},
		{"nr_inodes=35", store, MethodCopy, "/gc.lock$"},
		{"nr_inodes=80", store, MethodCopy, "/gc.lock$"},
		{"nr_inodes=80", store, "files", "/gc.lock$|" + tempSuffix + "(/[0-9]{32}-.*)?$"},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.limit, " ", filepath.Base(test.store), " ", test.method), func(t *testing.T) {
			mount := t.TempDir()
			args := []string{"--map-root-user", "--mount", "sh", "-c", script, mount}
			cmd := exec.CommandContext(t.Context(), "unshare", append(args, importArgs(t, c, c.root, mount+"/root", test.method)...)...)
			cmd.Env = append(os.Environ(), "LIMIT="+test.limit, "STORE="+test.store, "BEFORE="+filepath.Join(t.TempDir(), "before"))
			var left, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &left, &stderr
			err := cmd.Run()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() == 77 || strings.Contains(stderr.String(), "unshare") {
				missing(t, "no mount namespace: ", err, ": ", stderr.String())
			}
			if err == nil || !strings.Contains(stderr.String(), "no space left on device") {
				t.Errorf("%v: %s", err, stderr.String())
			}
			for name := range strings.Lines(left.String()) {
				name = strings.TrimSuffix(name, "\n")
				if test.left == "" || !regexp.MustCompile(test.left).MatchString(name) {
					t.Errorf("left behind: %s", name)
				}
			}
			if strings.Contains(test.left, tempSuffix) && !strings.Contains(left.String(), "-many/d1/f1") {
				t.Errorf("nothing was kept:\n%s", left.String())
			}
		})
	}
}
