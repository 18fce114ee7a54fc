package warm

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vm-prebuild/testrun/machine"
)

// explain says how a machine for which there is no state differs from the most
// similar one of its name that has one, here or packed in one of the directories; ""
// when there is none.
func (s Store) explain(inputs []machine.Input, packed []string) string {
	name := valueOf(inputs, "machine")
	var best []string
	var saved time.Time
	consider := func(root string, read func(dir string) (manifest, error)) {
		entries, _ := os.ReadDir(root) // what cannot be read explains nothing
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), name+"-") {
				continue
			}
			m, err := read(filepath.Join(root, e.Name()))
			if err != nil || valueOf(m.Inputs, "machine") != name {
				continue
			}
			if names := differing(inputs, m.Inputs); len(names) > 0 && (best == nil || len(names) < len(best)) {
				best, saved = names, m.Saved
			}
		}
	}
	consider(s.Dir, func(dir string) (manifest, error) {
		m, _, err := readManifest(filepath.Join(dir, manifestFile))
		return m, err
	})
	for _, root := range packed {
		consider(root, func(dir string) (manifest, error) {
			m, _, err := readPacked(dir)
			return m, err
		})
	}
	if best == nil {
		return ""
	}
	return fmt.Sprintf("that of %s differs in: %s", saved.Local().Format(time.DateTime), strings.Join(best, ", "))
}

func valueOf(inputs []machine.Input, name string) string {
	i := slices.IndexFunc(inputs, func(i machine.Input) bool { return i.Name == name })
	if i < 0 {
		return ""
	}
	return inputs[i].Value
}

// differing are the names of inputs that are not the same, in their order.
func differing(a, b []machine.Input) []string {
	var names []string
	for _, i := range append(slices.Clone(a), b...) {
		if valueOf(a, i.Name) != valueOf(b, i.Name) && !slices.Contains(names, i.Name) {
			names = append(names, i.Name)
		}
	}
	return names
}
