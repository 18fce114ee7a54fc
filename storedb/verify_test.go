package storedb

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

const (
	pathDrv  = StoreDir + "/dddddddddddddddddddddddddddddddd-d.drv"
	pathFile = StoreDir + "/33333333333333333333333333333333-file"
)

// verifiedStore makes a sound store.
func verifiedStore(t *testing.T) string {
	t.Helper()
	c := newTestClosure(t)
	c.add(t, pathDrv, `Derive([("dev","`+devPath+`","",""),("out","`+pathA+`","","")],[],[],"x","/bin/sh",[],[])`)
	c.write(t)
	root := filepath.Join(t.TempDir(), "root")
	_, err := Import(t.Context(), c.options(t, root))
	check(t, err)
	return root
}

func verify(t *testing.T, root string) Report {
	t.Helper()
	report, err := VerifyStore(t.Context(), VerifyOptions{Store: root, Jobs: 3})
	check(t, err)
	return report
}

func TestVerifyStore(t *testing.T) {
	root := verifiedStore(t)
	before := listing(t, root)
	var last Progress
	report, err := VerifyStore(t.Context(), VerifyOptions{Store: root, Progress: func(p Progress) { last = p }})
	check(t, err)
	if report.Errors != 0 || report.Warnings != 0 || report.Paths != 14 {
		t.Errorf("report %+v", report)
	}
	if last.Paths != report.Paths || last.Bytes != report.NarBytes || last.TotalBytes != report.NarBytes {
		t.Errorf("last progress %+v", last)
	}
	// References that are registered for no reason, as those of sources may be.
	want := Finding{SeverityInformation, KindUnused, pathFile, "the contents do not mention the registered reference " + pathA}
	if report.Information != 9 || !slices.Contains(report.Findings, want) {
		t.Errorf("findings %v", report.Findings)
	}
	if text, err := json.Marshal(report.Findings[0]); err != nil || !strings.HasPrefix(string(text), `{"severity":"information","kind":"unused","path":"/nix/store/`) {
		t.Errorf("as JSON: %s, %v", text, err)
	}
	if after := listing(t, root); !slices.Equal(before, after) {
		t.Errorf("the store was changed from\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	verifyStore(t, root)
}

// Each way in which a store can be broken is found, and nothing else is.
func TestVerifyBrokenStore(t *testing.T) {
	// alter changes a file of the store and makes it look as before.
	alter := func(file string, change func(file string) error) func(*testing.T, string) {
		return func(t *testing.T, root string) {
			file := filepath.Join(root, file)
			check(t, os.Chmod(filepath.Dir(file), 0o755))
			if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() {
				check(t, os.Chmod(file, 0o644))
			}
			check(t, change(file))
			if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() {
				check(t, os.Chmod(file, 0o444))
				canonicalTime(t, file)
			}
			if filepath.Base(filepath.Dir(file)) != "store" {
				check(t, os.Chmod(filepath.Dir(file), 0o555))
				canonicalTime(t, filepath.Dir(file))
			}
		}
	}
	write := func(file, contents string) func(*testing.T, string) {
		return alter(file, func(file string) error { return os.WriteFile(file, []byte(contents), 0o644) })
	}
	statement := func(statements string) func(*testing.T, string) {
		return func(t *testing.T, root string) {
			t.Helper()
			db, err := connect(filepath.Join(root, databaseDir, databaseName), "mode=rw&_foreign_keys=0")
			check(t, err)
			check(t, db.exec(t.Context(), statements))
			check(t, db.Close())
		}
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, root string)
		want   []Finding // of those that are errors and warnings, the detail up to a point
	}{
		{"path missing", func(t *testing.T, root string) { check(t, os.Remove(root+pathFile)) },
			[]Finding{{SeverityError, KindMissing, pathFile, "valid, but it does not exist"}}},
		{"contents", write(pathFile, "x"), []Finding{{SeverityError, KindModified, pathFile, "the contents have hash sha256:"}}},
		{"contents of the same size", write(pathFile, "a path that is a liar"),
			[]Finding{{SeverityError, KindModified, pathFile, "the contents have hash sha256:"}}},
		{"file missing", alter(pathB+"/share/large", os.Remove), []Finding{{SeverityError, KindModified, pathB, "the contents have hash"}}},
		{"fifo", alter(pathB+"/share/fifo", func(file string) error { return unix.Mkfifo(file, 0o444) }),
			[]Finding{{SeverityError, KindUnread, pathB, "archive "}}},
		{"size", statement("update ValidPaths set narSize = narSize + 1 where path = '" + pathFile + "'"),
			[]Finding{{SeverityError, KindModified, pathFile, "the contents have 136 bytes, registered are 137"}}},
		{"no size", statement("update ValidPaths set narSize = null where path = '" + pathFile + "'"),
			[]Finding{{SeverityWarning, KindUnhashed, pathFile, "no size is registered; that of the contents is 136 bytes"}}},
		{"no hash", statement("update ValidPaths set hash = 'sha256:" + strings.Repeat("0", 64) + "' where path = '" + pathFile + "'"),
			[]Finding{{SeverityWarning, KindUnhashed, pathFile, "no hash is registered; that of the contents is sha256:"}}},
		{"reference lost", statement("delete from Refs where reference = (select id from ValidPaths where path = '" + pathB + "')"),
			[]Finding{{SeverityError, KindReference, pathA, "the contents refer to " + pathB + ", which is not a registered reference"}}},
		{"reference to itself lost", statement("delete from Refs where referrer = reference"),
			[]Finding{{SeverityError, KindReference, pathA, "the contents refer to " + pathA + ", which"}}},
		{"reference of a source", statement("delete from Refs where referrer = reference; update ValidPaths set ca = 'fixed:r:sha256:0' where path = '" + pathA + "'"), nil},
		{"dangling reference", statement("insert into Refs values (1, 999)"),
			[]Finding{{SeverityError, KindDatabase, "", "row "}}},
		{"cycle", statement("insert into Refs select b.id, a.id from ValidPaths a, ValidPaths b where a.path = '" + pathA + "' and b.path = '" + pathB + "'"),
			[]Finding{{SeverityError, KindCycle, "", "ROOT/nix/var/nix/db/db.sqlite: the references of " + pathA + " lead in a circle"}}},
		{"garbage path", statement("update ValidPaths set path = '/etc/passwd' where path = '" + pathFile + "'"),
			[]Finding{{SeverityError, KindDatabase, "", `ValidPaths: row `}}},
		{"garbage hash", statement("update ValidPaths set hash = 'md5:x' where path = '" + pathFile + "'"),
			[]Finding{{SeverityError, KindDatabase, "", "ValidPaths: " + pathFile + ": hash \"md5:x\" is not a SHA-256 hash"}}},
		{"garbage size", statement("update ValidPaths set narSize = 'large' where path = '" + pathFile + "'"),
			[]Finding{{SeverityError, KindDatabase, "", "ValidPaths: row "}}},
		{"garbage reference", statement("insert into Refs values ('a', 'b')"),
			[]Finding{{SeverityError, KindDatabase, "", "Refs: a is not an integer"}, {SeverityError, KindDatabase, "", "row "}, {SeverityError, KindDatabase, "", "row "}}},
		{"index damaged", func(t *testing.T, root string) {
			// The index on references gets the root of that on outputs.
			statement("pragma writable_schema = 1; update sqlite_master set rootpage = (select rootpage from sqlite_master where name = 'IndexDerivationOutputs') where name = 'IndexReference'")(t, root)
		}, []Finding{{SeverityError, KindDatabase, "", "integrity check: "}}},
		{"output lost", statement("delete from DerivationOutputs where id = 'dev'"),
			[]Finding{{SeverityError, KindOutputs, pathDrv, `output "dev" is not registered`}}},
		{"output elsewhere", statement("update DerivationOutputs set path = '" + pathB + "' where id = 'dev'"),
			[]Finding{{SeverityError, KindOutputs, pathDrv, `output "dev" is ` + devPath + ", registered is " + pathB}}},
		{"output too many", statement("insert into DerivationOutputs select drv, 'lib', path from DerivationOutputs where id = 'dev'"),
			[]Finding{{SeverityError, KindOutputs, pathDrv, `the registered output "lib" is not in it`}}},
		{"outputs of no derivation", statement("insert into DerivationOutputs select id, 'out', path from ValidPaths where path = '" + pathFile + "'"),
			[]Finding{{SeverityError, KindOutputs, pathFile, "has outputs, but is no derivation"}}},
		{"derivation that is none", write(pathDrv, "hello"),
			[]Finding{{SeverityError, KindModified, pathDrv, ""}, {SeverityError, KindOutputs, pathDrv, "not a derivation"}}},
		{"mode", func(t *testing.T, root string) { check(t, os.Chmod(root+pathB+"/share/a", 0o755)) },
			[]Finding{{SeverityWarning, KindMetadata, pathB, "a mode other than 0444 or 0555: 1 of its files and directories, the first 11111111111111111111111111111111-b/share/a: 0755"}}},
		{"time", func(t *testing.T, root string) {
			check(t, unix.UtimesNanoAt(unix.AT_FDCWD, root+pathB+"/link", []unix.Timespec{{}, {Sec: 1, Nsec: 5}}, unix.AT_SYMLINK_NOFOLLOW))
		}, []Finding{{SeverityWarning, KindMetadata, pathB, "a modification time other than 1: 1 of its files and directories, the first 11111111111111111111111111111111-b/link: 1.000000005"}}},
		{"stray", func(t *testing.T, root string) { check(t, os.Mkdir(root+pathX, 0o755)) }, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			root := verifiedStore(t)
			test.damage(t, root)
			report := verify(t, root)
			matched := 0
			for _, f := range report.Findings {
				if f.Severity == SeverityInformation {
					continue
				}
				ok := slices.ContainsFunc(test.want, func(want Finding) bool {
					return f.Severity == want.Severity && f.Kind == want.Kind && f.Path == want.Path && strings.HasPrefix(f.Detail, strings.ReplaceAll(want.Detail, "ROOT", root))
				})
				if !ok {
					t.Errorf("unexpected: %+v", f)
				}
				matched++
			}
			if matched < len(test.want) || report.Errors+report.Warnings != matched {
				t.Errorf("%d errors and warnings, want %d: %+v", matched, len(test.want), report)
			}
			if test.name == "stray" && !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Kind == KindStray && f.Path == pathX }) {
				t.Errorf("findings %+v", report.Findings)
			}
		})
	}
}

func canonicalTime(t *testing.T, file string) {
	t.Helper()
	check(t, unix.UtimesNanoAt(unix.AT_FDCWD, file, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: tree.Mtime}}, unix.AT_SYMLINK_NOFOLLOW))
}

func TestVerifyOwner(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("not root")
		}
		t.Skip("only root can give files away")
	}
	root := verifiedStore(t)
	check(t, os.Lchown(root+pathFile, 12, 0))
	report := verify(t, root)
	if report.Errors != 0 || report.Warnings != 1 || !strings.HasPrefix(report.Findings[0].Detail, "another owner than the store directory: 1 of ") {
		t.Errorf("report %+v", report)
	}
}

// What keeps a store from being verified is no finding.
func TestVerifyStoreErrors(t *testing.T) {
	root := t.TempDir()
	_, err := VerifyStore(t.Context(), VerifyOptions{Store: root})
	if input := new(InputError); !errors.As(err, &input) || input.Reason != "there is no store database" {
		t.Errorf("err = %v", err)
	}
}
