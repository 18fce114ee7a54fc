package mountns

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vm-prebuild/storedb"
)

// config is what Nix is told by NIX_CONFIG. Stores made here are thrown away,
// so nothing needs to be synced. Nix builds as the user that it runs as: there
// is one user in a user namespace. Nothing is substituted, because a test that
// passes only because a cache was reachable is worth little.
const config = `build-users-group =
experimental-features = nix-command flakes
fsync-metadata = false
substituters =
`

// Environment is what a process needs to have in its environment, given as by
// [os.Environ], so that Nix uses the store below root, an absolute path, and
// nothing of the machine's. The caller's own NIX_CONFIG is kept, and overrides
// what is set here.
func Environment(root string, env []string) map[string]string {
	vars := map[string]string{
		"NIX_REMOTE":          root,
		"NIX_STORE_DIR":       storedb.StoreDir, // overrides NIX_STORE
		"NIX_STATE_DIR":       filepath.Join(root, "nix/var/nix"),
		"NIX_LOG_DIR":         filepath.Join(root, "nix/var/log/nix"),
		"NIX_CONF_DIR":        filepath.Join(root, "nix/etc"), // where nothing is
		"NIX_USER_CONF_FILES": "/dev/null",
		"NIX_CONFIG":          config + lookup(env, "NIX_CONFIG"),
	}
	if root == "/" {
		vars["NIX_REMOTE"] = "local"
	}
	if home := lookup(env, "HOME"); unix.Access(home, unix.R_OK|unix.W_OK|unix.X_OK) != nil {
		vars["HOME"] = filepath.Join(root, "nix/home") // Nix makes it when it needs it
	}
	return vars
}

// lookup returns the value of a variable, empty if it is not set.
func lookup(env []string, name string) string {
	for _, entry := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// apply returns env with vars set.
func apply(env []string, vars map[string]string) []string {
	set := slices.DeleteFunc(slices.Clone(env), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		_, ok := vars[name]
		return ok
	})
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		set = append(set, name+"="+vars[name])
	}
	return set
}
