package storedb

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"
)

// readDatabase looks for damage and reads all that the database knows.
func (v *verifier) readDatabase(ctx context.Context, db *database) error {
	v.infos, v.outputs, v.findings = nil, map[string][]output{}, nil // it may be called again
	steps := []func(context.Context, *database) error{v.checkIntegrity, v.readAll}
	for _, step := range steps {
		err := step(ctx, db)
		if input, ok := errors.AsType[*InputError](err); ok && ctx.Err() == nil {
			v.find(KindDatabase, "", "%s", input.Reason)
		} else if err != nil {
			return err
		}
	}
	if _, err := newGraph(&Closure{Name: db.file, Paths: v.infos}); err != nil {
		v.find(KindCycle, "", "%v", err)
	}
	return nil
}

// checkIntegrity has SQLite look for damage.
func (v *verifier) checkIntegrity(ctx context.Context, db *database) error {
	err := db.query(ctx, "pragma integrity_check", nil, func(row []driver.Value) error {
		if row[0] != "ok" {
			v.find(KindDatabase, "", "integrity check: %v", row[0])
		}
		return nil
	})
	if err == nil {
		err = db.query(ctx, "pragma foreign_key_check", nil, func(row []driver.Value) error {
			v.find(KindDatabase, "", "row %v of %v refers to a row of %v that does not exist", row[1], row[0], row[2])
			return nil
		})
	}
	if err != nil {
		return db.failed("check", err)
	}
	return nil
}

// readAll reads paths, references and outputs. Rows that cannot be right are
// findings, and left out.
func (v *verifier) readAll(ctx context.Context, db *database) error {
	index := map[int64]int{}
	err := db.query(ctx, "select "+pathColumns+" from ValidPaths", nil, func(row []driver.Value) error {
		id, info, err := scanPath(row)
		if err != nil {
			v.find(KindDatabase, "", "ValidPaths: %v", err)
			return nil
		}
		index[id] = len(v.infos)
		v.infos = append(v.infos, info)
		return nil
	})
	if err != nil {
		return db.failed("read paths from", err)
	}
	err = db.query(ctx, "select referrer, reference from Refs", nil, func(row []driver.Value) error {
		referrer, reference, err := integers(row)
		if err != nil {
			v.find(KindDatabase, "", "Refs: %v", err)
			return nil
		}
		// What does not exist has been found by the check of foreign keys.
		from, ok1 := index[referrer]
		to, ok2 := index[reference]
		if ok1 && ok2 {
			v.infos[from].References = append(v.infos[from].References, v.infos[to].Path)
		}
		return nil
	})
	if err != nil {
		return db.failed("read references from", err)
	}
	for i := range v.infos {
		slices.Sort(v.infos[i].References)
	}
	err = db.query(ctx, "select drv, id, path from DerivationOutputs", nil, func(row []driver.Value) error {
		drv, ok1 := row[0].(int64)
		name, ok2 := row[1].(string)
		path, ok3 := row[2].(string)
		if !ok1 || !ok2 || !ok3 {
			v.find(KindDatabase, "", "DerivationOutputs: a row with %v, %v, %v", row[0], row[1], row[2])
			return nil
		}
		if i, ok := index[drv]; ok {
			v.outputs[v.infos[i].Path] = append(v.outputs[v.infos[i].Path], output{name, path})
		}
		return nil
	})
	if err != nil {
		return db.failed("read outputs from", err)
	}
	for path, outputs := range v.outputs {
		slices.SortFunc(outputs, func(a, b output) int { return strings.Compare(a.name, b.name) })
		if !isDerivation(path) {
			v.find(KindOutputs, path, "has outputs, but is no derivation")
		}
	}
	return nil
}
