package storedb

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
			summary, err = Import(context.Background(), Options{
				Closure: closure, From: os.Args[3], Store: os.Args[4], Method: Method(os.Args[5]), Jobs: 2,
				Progress: func(p Progress) {
					fmt.Println(p.Phase, p.Paths)
					_, _ = input.ReadString('\n')
				},
			})
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

// An import that runs out of space says so and leaves nothing behind. A small
// file system in a mount namespace of its own needs no privileges.
func TestImportWithoutSpace(t *testing.T) {
	c := newTestClosure(t)
	const script = `
		mount -t tmpfs -o $LIMIT tmpfs "$0" || exit 77
		"$@" </dev/null >/dev/null
		status=$?
		find "$0" -mindepth 1
		exit $status`
	for _, limit := range []string{"size=200k", "size=700k", "nr_inodes=15", "nr_inodes=80"} {
		t.Run(limit, func(t *testing.T) {
			mount := t.TempDir()
			cmd := importCommand(t, c, mount+"/root", "unshare", "--map-root-user", "--mount", "sh", "-c", script, mount)
			cmd.Env = append(os.Environ(), "LIMIT="+limit)
			var left, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &left, &stderr
			err := cmd.Run()
			if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() == 77 || strings.Contains(stderr.String(), "unshare") {
				missing(t, "no mount namespace: ", err, ": ", stderr.String())
			}
			if err == nil || !strings.Contains(stderr.String(), "no space left on device") {
				t.Errorf("%v: %s", err, stderr.String())
			}
			if left.String() != "" {
				t.Errorf("left behind:\n%s", left.String())
			}
		})
	}
}
