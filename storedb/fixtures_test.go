package storedb

import (
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// testdata/nix-VERSION is made by that Nix: nix/offline/fixtures.sh.
var fixtures = []string{filepath.Join("testdata", "nix-2.8"), filepath.Join("testdata", "nix-2.26")}

func readFixture(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A derivation, its result, and what it is made of, as Nix dumps them.
func TestFixtureRegistration(t *testing.T) {
	for _, dir := range fixtures {
		t.Run(dir, func(t *testing.T) {
			infos, err := ParseRegistration(strings.NewReader(readFixture(t, dir, "registration")), "registration")
			if err != nil {
				t.Fatal(err)
			}
			if len(infos) != 4 {
				t.Fatalf("%d paths, want 4", len(infos))
			}
			drv := slices.IndexFunc(infos, func(i PathInfo) bool { return isDerivation(i.Path) })
			result := slices.IndexFunc(infos, func(i PathInfo) bool { return i.Deriver != "" })
			if drv < 0 || result < 0 || infos[result].Deriver != infos[drv].Path {
				t.Fatalf("the derivation and its result are %d and %d of %+v", drv, result, infos)
			}
			if !slices.Contains(infos[result].References, infos[result].Path) {
				t.Error("the result does not refer to itself")
			}
			folder, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer folder.Close()
			outputs, err := derivationOutputs(int(folder.Fd()), "result.drv")
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(outputs, output{"out", infos[result].Path}) || len(outputs) != 2 {
				t.Errorf("outputs are %v, want %s and another", outputs, infos[result].Path)
			}
		})
	}
}

// The tables that are made have the columns, keys and triggers of Nix's.
func TestFixtureSchema(t *testing.T) {
	describe := func(t *testing.T, schema string) map[string][]string {
		t.Helper()
		db, err := sql.Open("sqlite3", ":memory:")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		db.SetMaxOpenConns(1) // each would have a memory of its own
		if _, err := db.ExecContext(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
		described := map[string][]string{}
		for what, query := range map[string]string{
			"columns": `select m.name, c.name, lower(c.type), c."notnull", c.pk, coalesce(c.dflt_value, '') from sqlite_master m, pragma_table_info(m.name) c where m.type = 'table'`,
			"foreign": `select m.name, f."from", f."table", f."to", f.on_delete, f.on_update from sqlite_master m, pragma_foreign_key_list(m.name) f where m.type = 'table'`,
			"indices": `select m.name, i."unique", i.origin, c.name, c.seqno, iif(i.origin = 'c', i.name, '') from sqlite_master m, pragma_index_list(m.name) i, pragma_index_info(i.name) c where m.type = 'table'`,
			"trigger": `select tbl_name, name, '', '', '', '' from sqlite_master where type = 'trigger'`,
			"options": `select name, instr(lower(sql), 'autoincrement') > 0, '', '', '', '' from sqlite_master where type = 'table'`,
		} {
			rows, err := db.QueryContext(t.Context(), query)
			if err != nil {
				t.Fatal(err)
			}
			for rows.Next() {
				row := make([]string, 6)
				if err := rows.Scan(&row[0], &row[1], &row[2], &row[3], &row[4], &row[5]); err != nil {
					t.Fatal(err)
				}
				described[what] = append(described[what], strings.Join(row, " "))
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			rows.Close()
			slices.Sort(described[what])
		}
		return described
	}
	ours := describe(t, tables+indices)
	for _, dir := range fixtures {
		t.Run(dir, func(t *testing.T) {
			if got := strings.TrimSpace(readFixture(t, dir, "schema-version")); got != schemaVersion {
				t.Errorf("schema version is %s, ours %s", got, schemaVersion)
			}
			// SQLite makes this table itself.
			schema := strings.Replace(readFixture(t, dir, "schema.sql"), "CREATE TABLE sqlite_sequence(name,seq);", "", 1)
			ignore := cmpopts.IgnoreSliceElements(func(line string) bool {
				// What versions differ in, which tables explains.
				return strings.Contains(line, "IndexReferrer") || strings.HasPrefix(line, "SchemaMigrations ")
			})
			if diff := cmp.Diff(describe(t, schema), ours, ignore); diff != "" {
				t.Errorf("schema (-nix +ours):\n%s", diff)
			}
		})
	}
}
