package qemu

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/startcommand"
)

// options are QEMU's arguments with what stands before each, without dashes.
func options(args []string) iter.Seq2[string, string] {
	return func(yield func(option, value string) bool) {
		for i, arg := range args[min(1, len(args)):] {
			if !yield(strings.TrimLeft(args[i], "-"), arg) {
				return
			}
		}
	}
}

// statesOfOthers finds in QEMU's arguments what has a state that is not QEMU's.
func statesOfOthers(args []string) []string {
	var found []string
	for option, value := range options(args) {
		fields := strings.Split(value, ",")
		switch {
		case (option == "virtfs" || option == "fsdev") && slices.Contains(fields, "path=/nix/store"):
			// Mounted, it forbids migration, and nothing can unmount this one.
			found = append(found, "its /nix/store is a share (9p) of the host's\nhint: set prebuild.storeImage, or virtualisation.useNixStoreImage, to true")
		case option == "device" && strings.HasPrefix(value, "vhost-user-"):
			found = append(found, fmt.Sprintf("%s keeps a state of its own", fields[0]))
		}
	}
	return found
}

// memoryObstacles finds in QEMU's arguments what keeps the guest's memory from
// being a file of ours.
func memoryObstacles(args []string) []string {
	var found []string
	for option, value := range options(args) {
		fields := strings.Split(value, ",")
		switch {
		case option == "object" && strings.HasPrefix(value, "memory-backend-") && !strings.Contains(value, startcommand.RAMID):
			found = append(found, "the start script says where its memory is ("+fields[0]+")")
		case option == "numa":
			found = append(found, "the start script divides its memory (-numa)")
		}
	}
	return found
}

// outputs are options for what QEMU writes to, and guestWords what the guest reads:
// neither names what the machine is made of.
var (
	outputs    = []string{"chardev", "serial", "parallel", "debugcon", "D", "pidfile"}
	guestWords = []string{"append"}
)

// pathsIn are all words in arguments that could name files: QEMU, whose working
// directory is cwd, has more ways to write options than are worth telling apart.
func pathsIn(args []string, cwd string) []string {
	var paths []string
	for option, arg := range options(args) {
		if slices.Contains(outputs, option) || slices.Contains(guestWords, option) {
			continue
		}
		for _, value := range valuesIn(arg) {
			paths = append(paths, at(cwd, strings.TrimPrefix(value, "file:")))
		}
	}
	return paths
}

// at is an absolute path of what a process with that working directory means.
func at(cwd, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(cwd, path)
}

// valuesIn are an argument, the values of the options in it, and the strings in JSON.
func valuesIn(arg string) []string {
	values := []string{arg}
	// A comma in a value is written twice.
	const comma = "\x00"
	for _, field := range strings.Split(strings.ReplaceAll(arg, ",,", comma), ",") {
		_, value, ok := strings.Cut(field, "=")
		if !ok {
			value = field
		}
		values = append(values, strings.ReplaceAll(value, comma, ","))
	}
	for _, value := range slices.Clone(values) {
		var decoded any
		if text := strings.TrimPrefix(value, "json:"); strings.HasPrefix(text, "{") && json.Unmarshal([]byte(text), &decoded) == nil {
			values = append(values, stringsIn(decoded)...)
		}
	}
	return values
}

func stringsIn(decoded any) (all []string) {
	switch v := decoded.(type) {
	case string:
		all = append(all, v)
	case []any:
		for _, e := range v {
			all = append(all, stringsIn(e)...)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			all = append(all, stringsIn(v[key])...)
		}
	}
	return all
}

// fatObstacles finds disks in QEMU's arguments that it makes of a directory of the
// host's, whose files may be others by the time that the guest reads them.
func fatObstacles(args []string) (found []string) {
	isFAT := func(value string) bool { return value == "vvfat" || strings.HasPrefix(value, "fat:") }
	for option, arg := range options(args) {
		if !slices.Contains(guestWords, option) && slices.ContainsFunc(valuesIn(arg), isFAT) {
			found = append(found, "it has a directory of the host's as a disk (fat:)")
		}
	}
	return found
}

// normalise gives names to what differs between runs of the same machine.
func (r run) normalise(args []string, dirs machine.Dirs, env []string) []string {
	names := map[string]string{dirs.State: "@state@", dirs.Shared: "@shared@"}
	if state, err := filepath.EvalSymlinks(dirs.State); err == nil {
		names[state] = "@state@"
	}
	if r.state.RAM != "" {
		names[r.state.RAMArgument()] = "@ram@"
	}
	if r.state.Disk != "" {
		names[r.state.Disk] = "@disk@"
	}
	for _, v := range env {
		if name, path, _ := strings.Cut(v, "="); strings.HasPrefix(name, "QEMU_VDE_SOCKET_") && path != "" {
			names[path] = "@" + name + "@"
		}
	}
	var pairs []string
	for _, path := range slices.SortedFunc(maps.Keys(names), func(a, b string) int { return len(b) - len(a) }) {
		pairs = append(pairs, path, names[path])
	}
	replacer := strings.NewReplacer(pairs...)
	var out []string
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-S", "-no-reboot": // of no consequence to the hardware
		case "-incoming":
			i++
		default:
			out = append(out, replacer.Replace(args[i]))
		}
	}
	return out
}
