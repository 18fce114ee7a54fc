package storedb

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// inNamespace runs an import of c and then script in a mount namespace, after
// prepare. Both are for sh, with $STORE the store's root and $SOURCE the
// source's. Exit status 77 says that something is missing here.
func inNamespace(t *testing.T, c *testClosure, method Method, source, store, prepare, script string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath("nix-store"); err != nil {
		missing(t, err)
	}
	args := []string{"--mount", "--propagation", "private"}
	if os.Geteuid() != 0 {
		args = append(args, "--map-root-user")
	}
	args = append(args, "sh", "-ec", prepare+"\n"+`progress=$("$@" </dev/null)`+"\n"+script, "sh")
	args = append(args, importArgs(t, c, source, store, method)...)
	cmd := exec.CommandContext(t.Context(), "unshare", args...)
	cmd.Env = append(os.Environ(), "STORE="+store, "SOURCE="+source, "FROM="+c.root, "NIX_CONFIG=build-users-group =", "NIX_REMOTE=")
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && (exit.ExitCode() == 77 || strings.HasPrefix(stderr.String(), "unshare")) {
		missing(t, stderr.String())
	}
	if err != nil {
		return out.String(), errors.New(stderr.String())
	}
	return out.String(), nil
}

// useStore has Nix verify the store and write to it.
const useStore = `
	nix-store --store "$STORE" --verify --check-contents 2>/dev/null
	echo new >"$STORE/new"
	nix-store --store "$STORE" --add "$STORE/new" >/dev/null
	nix-store --store "$STORE" --verify --check-contents 2>/dev/null
	ls "$STORE/nix/store"`

// Mounts show the closure, and nothing else of the source, in a store that can be
// written to.
func TestImportMounts(t *testing.T) {
	for _, method := range []Method{MethodOverlay, MethodBind} {
		t.Run(string(method), func(t *testing.T) {
			c := newTestClosure(t)
			root := filepath.Join(t.TempDir(), "root")
			check(t, os.WriteFile(c.file("/nix/store/99999999999999999999999999999999-other"), nil, 0o444))
			if method == MethodBind {
				check(t, os.MkdirAll(root+pathA+"/leftover", 0o755))
			}
			out, err := inNamespace(t, c, method, c.root, root, "", useStore)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(out, "\n"); n != len(c.paths)+1 || strings.Contains(out, "other") {
				t.Errorf("%d names, want %d:\n%s", n, len(c.paths)+1, out)
			}
			checkContents(t, c, c.root) // the source is untouched
		})
	}
}

func TestImportMountFails(t *testing.T) {
	c := newTestClosure(t)
	root := filepath.Join(t.TempDir(), "root")
	check(t, os.MkdirAll(root+pathC, 0o755))
	_, err := inNamespace(t, c, MethodOverlay, c.root, root, "", "")
	if want := "method overlay: an overlay would hide " + root + pathC + "\nhint: use method bind"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("err = %v, want %q", err, want)
	}
	// Not all of what is to be bound can be: the rest goes away.
	check(t, os.RemoveAll(c.file(pathA)))
	check(t, syscall.Mkfifo(c.file(pathA), 0o644))
	if _, err = inNamespace(t, c, MethodBind, c.root, root, "", ""); err == nil {
		t.Error("a FIFO was bound")
	}
	entries, err := os.ReadDir(filepath.Join(root, storeDir))
	if err != nil || len(entries) != 1 || entries[0].Name() != baseName(pathC) {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// What was mounted is gone with its namespace, and a later import says so.
func TestImportMountGone(t *testing.T) {
	for method, hint := range map[Method]string{MethodOverlay: " --verify' to drop such paths", MethodBind: "import into a new store"} {
		t.Run(string(method), func(t *testing.T) {
			c := newTestClosure(t)
			root := filepath.Join(t.TempDir(), "root")
			script := useStore + "\n" + `nix-store --store "$STORE" --add "$STORE/new"; "$@" </dev/null` // again, with nothing to do
			if _, err := inNamespace(t, c, method, c.root, root, "", script); err != nil {
				t.Fatal(err)
			}
			for _, dryRun := range []bool{false, true} {
				o := c.options(t, root)
				o.Method, o.DryRun = method, dryRun
				_, err := Import(t.Context(), o)
				if e := new(InputError); !errors.As(err, &e) || !strings.Contains(e.Reason, "has no files, nor have") || !strings.Contains(e.Hint, hint) {
					t.Errorf("err = %v, want %q", err, hint)
				}
			}
			if method == MethodBind {
				return
			}
			nix(t, "nix-store", "--store", root, "--verify")
			_, err := inNamespace(t, c, method, c.root, root, "", "")
			if want := "method overlay: the store has a database already"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("err = %v, want %q", err, want)
			}
			// Without the database, what Nix has added is still kept.
			check(t, os.RemoveAll(filepath.Join(root, databaseDir)))
			upper := filepath.Join(root, overlayDir, "upper")
			_, err = inNamespace(t, c, method, c.root, root, "", "")
			if want := "method overlay: " + upper + " has what was written"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("err = %v, want %q", err, want)
			}
			if added, err := filepath.Glob(upper + "/*-new"); len(added) != 1 || err != nil {
				t.Errorf("in %s: %v, %v", upper, added, err)
			}
			if _, err := Import(t.Context(), c.options(t, root)); err != nil {
				t.Fatal(err)
			}
			checkContents(t, c, root)
		})
	}
}

const btrfs = `
	trap 'exit 77' EXIT
	truncate -s 200M "$STORE.img"
	mkfs.btrfs -q "$STORE.img"
	mkdir -p "$STORE.mnt"
	mount -o loop "$STORE.img" "$STORE.mnt"
	trap - EXIT
	mkdir -p "$SOURCE/nix"
	btrfs -q subvolume create "$SOURCE/nix/store"
	cp -a "$FROM"/nix/store/* "$SOURCE/nix/store"
	find "$SOURCE/nix/store" -mindepth 1 -exec touch -hd @1 {} + -type f -perm /100 -exec chmod 0555 {} + -o -type f -exec chmod 0444 {} + -o -type d -exec chmod 0555 {} +
`

// whileSnapshot runs a command when the snapshot has been made and the import
// waits for the lock of the store.
func whileSnapshot(command string) string {
	return btrfs + `
	mkdir -p "$STORE/nix/store" "$STORE/` + databaseDir + `"
	(
		exec 9>"$STORE/` + bigLockFile + `"
		flock -s 9
		touch "$STORE.locked"
		for n in $(seq 500); do
			if test -e "$STORE/` + snapshotName + `"; then break; fi
			sleep 0.01
		done
		test -e "$STORE/` + snapshotName + `"
		sleep 0.1
		` + command + `
	) >/dev/null &
	until test -e "$STORE.locked"; do sleep 0.01; done
`
}

// A snapshot of a btrfs subvolume becomes the store's directory of paths.
func TestImportSnapshot(t *testing.T) {
	tests := []struct {
		name         string
		method, took Method
		prepare      string
		want         string // error
	}{
		{"auto", MethodAuto, MethodSnapshot, btrfs, ""},
		{"other paths", MethodSnapshot, MethodSnapshot, btrfs + `mkdir -p "$SOURCE/nix/store/other/x"; chmod 555 "$SOURCE/nix/store/other"`, ""},
		{"many other paths", MethodAuto, MethodAuto, btrfs + `mkdir "$SOURCE"/nix/store/other1 "$SOURCE"/nix/store/other2`, ""},
		{"leftovers", MethodSnapshot, MethodSnapshot, btrfs + `btrfs -q subvolume snapshot "$SOURCE/nix/store" "$STORE.mnt/s"; mkdir -p "$STORE/nix"; mv "$STORE.mnt/s" "$STORE/` + snapshotName + `"`, ""},
		{"not a subvolume", MethodSnapshot, "", btrfs + `mv "$SOURCE/nix/store" "$SOURCE/s"; mkdir "$SOURCE/nix/store"; cp -a "$SOURCE"/s/* "$SOURCE/nix/store"`, "SOURCE/nix/store is not a btrfs subvolume\nhint: use method reflink"},
		{"in the way", MethodSnapshot, "", btrfs + `mkdir -p "$STORE/nix/store/precious"`, "STORE/nix/store/precious is in the way of a snapshot\nhint: use method reflink"},
		{"existing store", MethodSnapshot, "", btrfs + `nix-store --store "$STORE" --init`, "the store has paths already, and a snapshot is a whole store\nhint: use method reflink"},
		{"somebody adds", MethodAuto, MethodAuto, whileSnapshot(`touch "$STORE/nix/store/added"`), ""},
		{"somebody adds to a snapshot", MethodSnapshot, "", whileSnapshot(`touch "$STORE/nix/store/added"`), "STORE/nix/store/added is in the way of a snapshot"},
		{"Nix adds", MethodAuto, MethodAuto, whileSnapshot(`touch "$STORE.added"; nix-store --store "$STORE" --add "$STORE.added"`), ""},
		{"Nix adds to a snapshot", MethodSnapshot, "", whileSnapshot(`touch "$STORE.added"; nix-store --store "$STORE" --add "$STORE.added"`), "somebody has begun to use the store meanwhile"},
		{"modified", MethodSnapshot, "", btrfs + `chmod 755 "$SOURCE` + pathA + `"`, pathA + " has metadata that nothing in a store has"},
	}
	if os.Geteuid() != 0 {
		missing(t, "only root can mount a btrfs")
	}
	for _, tool := range []string{"mkfs.btrfs", "btrfs"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, err)
		}
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newTestClosure(t)
			base := filepath.Join(t.TempDir(), "root")
			store, source := base+".mnt/root", base+".mnt/source"
			prepare := strings.NewReplacer(`"$STORE.img"`, base+".img", `"$STORE.mnt"`, base+".mnt", `$STORE.mnt`, base+".mnt").Replace(test.prepare)
			out, err := inNamespace(t, c, test.method, source, store, prepare,
				useStore+`; ls -A "$STORE/nix"; stat -c %i "$STORE/nix/store"; echo "$progress"`)
			if test.want != "" {
				want := strings.NewReplacer("SOURCE", source, "STORE", store).Replace(test.want)
				if err == nil || !strings.Contains(err.Error(), "method snapshot: "+want) {
					t.Errorf("err = %v, want %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			names := strings.Fields(out)
			if n := len(c.paths) + 1 + len([]string{"store", "var", "inode"}); len(names) < n {
				t.Fatalf("out:\n%s", out)
			}
			if strings.Contains(out, "other") && test.method == MethodSnapshot {
				t.Errorf("other paths have come with the snapshot:\n%s", out)
			}
			if kept := strings.Contains(out, "added\n"); kept != strings.Contains(test.name, "adds") || strings.Contains(out, filepath.Base(snapshotName)) {
				t.Errorf("what was added is there: %v\n%s", kept, out)
			}
			var summary Summary
			if err := json.Unmarshal([]byte(out[strings.LastIndex(out, "{"):]), &summary); err != nil || summary.Method != test.took {
				t.Errorf("method %q, want %q (%v)", summary.Method, test.took, err)
			}
			if snapshot := strings.Contains(out, "\n256\n"); snapshot != (test.took == MethodSnapshot) {
				t.Errorf("the store is a subvolume: %v\n%s", snapshot, out)
			}
		})
	}
}

// Without privileges, read-only directories cannot simply be moved.
func TestImportUnprivileged(t *testing.T) {
	for _, method := range []Method{MethodAuto, "files"} {
		c := newTestClosure(t)
		root := filepath.Join(t.TempDir(), "root")
		args := append([]string{"--user", "--map-user=1000"}, importArgs(t, c, c.root, root, method)...)
		cmd := exec.CommandContext(t.Context(), "unshare", args...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil {
			if strings.HasPrefix(stderr.String(), "unshare") {
				missing(t, stderr.String())
			}
			t.Fatal(err, stderr.String())
		}
		checkContents(t, c, root)
		checkMetadata(t, filepath.Join(root, storeDir))
		verifyStore(t, root)
		if left := leftovers(t, root); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}
