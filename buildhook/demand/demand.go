// Package demand finds out what a VM test takes from its host. [Of] is its entry
// point.
//
// A test is a derivation that runs a program nixos-test-driver, of a store path
// named nixos-test-driver-NAME. That is a wrapper: a script, or a binary, in which
// the start scripts of the machines are named, or a JSON file that names them. A
// start script, run-NAME-vm, ends in the command line of QEMU, with -m and -smp.
// All of these are inputs of the derivation, written by whoever wrote the test:
// they are only searched for store paths and numbers, and no file is read that is
// not in the store.
package demand

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"vm-prebuild/buildhook/admission"
	"vm-prebuild/nar/storepath"
)

// What a machine has that says nothing, as in nixpkgs.
const (
	defaultMemoryMiB = 1024
	defaultCores     = 1
)

// More than these is no test, and no number that QEMU takes. A test has one start
// script for each machine.
const (
	maxFile      = 4 << 20  // bytes
	maxTotal     = 16 << 20 // bytes of all files
	maxFiles     = 64
	maxMemoryMiB = 1 << 30
	maxCores     = 1 << 16
)

const inStore = `/nix/store/[0-9a-df-np-sv-z]{32}-`

var (
	driverPath = regexp.MustCompile(inStore + `nixos-test-driver-[0-9A-Za-z+._?=-]+`)
	jsonPath   = regexp.MustCompile(inStore + `[0-9A-Za-z+._?=-]+\.json\b`)
	scriptPath = regexp.MustCompile(inStore + `[0-9A-Za-z+._?=-]+/bin/run-[0-9A-Za-z+._?=-]+-vm\b`)

	execLine = regexp.MustCompile(`(?m)^\s*exec\s`)
	option   = regexp.MustCompile(`\s--?(m|smp)\s+(\S+)`)
	size     = regexp.MustCompile(`^([0-9]+)([KkMmGgTt]?)$`)
)

// Unknown is what a derivation is taken to need in which no driver is found.
var Unknown = admission.Demand{Machines: 1, MemoryMiB: defaultMemoryMiB, Cores: defaultCores}

// ErrNoDriver says that a derivation does not name a test driver.
var ErrNoDriver = errors.New("it names no nixos-test-driver")

// Of returns what the machines of a test need together. texts are the builder,
// arguments and environment of its derivation, and root is that of the store with
// its inputs. If that cannot be found out, it returns an error, and [Unknown].
func Of(ctx context.Context, root string, texts []string) (admission.Demand, error) {
	store, err := os.Open(filepath.Join(root, storepath.Dir))
	if err != nil {
		return Unknown, fmt.Errorf("open store: %w", err)
	}
	defer store.Close()
	drivers := paths{}
	for _, text := range texts {
		if err := drivers.find(driverPath, text); err != nil {
			return Unknown, err
		}
	}
	if len(drivers) == 0 {
		return Unknown, ErrNoDriver
	}
	r := &reader{store: store}
	scripts, err := r.startScripts(ctx, drivers.sorted())
	if err != nil {
		return Unknown, err
	}
	if len(scripts) == 0 {
		return Unknown, fmt.Errorf("%s names no start script", drivers.sorted()[0])
	}
	d := admission.Demand{Machines: len(scripts)}
	for _, script := range scripts {
		text, err := r.read(ctx, script)
		if err != nil {
			return Unknown, err
		}
		memoryMiB, cores, err := machine(text)
		if err != nil {
			return Unknown, fmt.Errorf("%s: %w", script, err)
		}
		d.MemoryMiB += memoryMiB
		d.Cores += cores
	}
	return d, nil
}

// startScripts returns those of the machines of drivers.
func (r *reader) startScripts(ctx context.Context, drivers []string) ([]string, error) {
	scripts := paths{}
	for _, driver := range drivers {
		wrapper, err := r.read(ctx, driver+"/bin/nixos-test-driver")
		if err != nil {
			return nil, err
		}
		configurations := paths{}
		if err := errors.Join(scripts.find(scriptPath, wrapper), configurations.find(jsonPath, wrapper)); err != nil {
			return nil, err
		}
		for _, file := range configurations.sorted() {
			text, err := r.read(ctx, file)
			if err == nil {
				err = scripts.find(scriptPath, text)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return scripts.sorted(), nil
}

// paths are some of a store, not more than may be read.
type paths map[string]bool

// find adds what matches in a text.
func (p paths) find(pattern *regexp.Regexp, text string) error {
	for at := 0; ; {
		match := pattern.FindStringIndex(text[at:])
		if match == nil {
			return nil
		}
		path := strings.Clone(text[at+match[0] : at+match[1]]) // not to keep the text
		if p[path] = true; len(p) > maxFiles {
			return fmt.Errorf("more than %d paths like %s are named", maxFiles, path)
		}
		at += match[1]
	}
}

func (p paths) sorted() []string { return slices.Sorted(maps.Keys(p)) }

// machine returns what a start script gives to QEMU, of whose options the last counts.
func machine(script string) (memoryMiB, coreCount int, err error) {
	if lines := execLine.FindAllStringIndex(script, -1); len(lines) > 0 {
		script = script[lines[len(lines)-1][0]:]
	}
	memoryMiB, coreCount = defaultMemoryMiB, defaultCores
	last := map[string]string{}
	for _, m := range option.FindAllStringSubmatch(script, -1) {
		last[m[1]] = m[2]
	}
	if value, ok := last["m"]; ok {
		if memoryMiB, err = memory(value); err != nil {
			return 0, 0, fmt.Errorf("-m %s: %w", value, err)
		}
	}
	if value, ok := last["smp"]; ok {
		if coreCount, err = cores(value); err != nil {
			return 0, 0, fmt.Errorf("-smp %s: %w", value, err)
		}
	}
	return memoryMiB, coreCount, nil
}

// memory is what a value of -m means, in MiB: a size that may be followed by what can
// be plugged in later.
func memory(value string) (int, error) {
	text, _, _ := strings.Cut(strings.TrimPrefix(value, "size="), ",")
	m := size.FindStringSubmatch(text)
	if m == nil {
		return 0, errors.New("not a size of a known form")
	}
	if unit := strings.ToUpper(m[2]); unit == "K" {
		n, err := number(m[1], maxMemoryMiB)
		return (n + 1023) / 1024, err
	}
	unit := map[string]int{"": 1, "M": 1, "G": 1 << 10, "T": 1 << 20}[strings.ToUpper(m[2])]
	n, err := number(m[1], maxMemoryMiB/unit)
	return n * unit, err
}

// topology are the levels of what a processor is made of, of which each has so many
// of the next.
var topology = []string{"drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"}

// cores is what a value of -smp means: a number, and else what can be plugged in later,
// and else what the processor is made of.
func cores(value string) (int, error) {
	values, product := map[string]int{}, 1
	for i, field := range strings.Split(value, ",") {
		key, text, ok := strings.Cut(field, "=")
		if !ok && i == 0 {
			key, text = "cpus", field
		}
		level := slices.Contains(topology, key)
		if !level && key != "cpus" && key != "maxcpus" {
			return 0, errors.New("not a number of processors of a known form")
		}
		n, err := number(text, maxCores)
		if err != nil {
			return 0, err
		}
		values[key] = n
		if level {
			if product *= n; product > maxCores {
				return 0, fmt.Errorf("more than %d", maxCores)
			}
		}
	}
	for _, key := range []string{"cpus", "maxcpus"} {
		if n, ok := values[key]; ok {
			return n, nil
		}
	}
	return product, nil
}

func number(digits string, limit int) (int, error) {
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > limit {
		return 0, fmt.Errorf("%s is not between 1 and %d", digits, limit)
	}
	return n, nil
}

// reader reads files of a store, and not more than a test has.
type reader struct {
	store *os.File
	files int
	bytes int64
}

// read reads a file. Symbolic links are followed as far as they lead to store paths.
func (r *reader) read(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if r.files++; r.files > maxFiles {
		return "", fmt.Errorf("read %s: more than %d files", name, maxFiles)
	}
	f, err := open(r.store, name)
	if err != nil {
		return "", &os.PathError{Op: "read", Path: name, Err: err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return "", fmt.Errorf("read %s: not a file of at most %d bytes", name, maxFile)
	}
	if r.bytes += info.Size(); r.bytes > maxTotal {
		return "", fmt.Errorf("read %s: more than %d bytes, with the others", name, maxTotal)
	}
	text, err := io.ReadAll(io.LimitReader(f, info.Size()))
	return string(text), err
}

// maxLinks is how many symbolic links are followed, as the kernel does.
const maxLinks = 40

func open(store *os.File, name string) (*os.File, error) {
	for range maxLinks {
		inside, ok := strings.CutPrefix(path.Clean(name), storepath.Dir+"/")
		if !ok {
			return nil, fmt.Errorf("it leads out of the store, to %s", name)
		}
		next, err := firstLink(store, inside)
		if err != nil {
			return nil, err
		}
		if next != "" {
			name = next
			continue
		}
		fd, err := unix.Openat2(int(store.Fd()), inside, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	return nil, unix.ELOOP
}

// firstLink looks for the first symbolic link on the way to the name inside the
// store, and returns where the name leads with that followed; empty if there is
// none.
func firstLink(store *os.File, inside string) (string, error) {
	parts := strings.Split(inside, "/")
	buf := make([]byte, unix.PathMax)
	for i := range parts {
		here := strings.Join(parts[:i+1], "/")
		n, err := unix.Readlinkat(int(store.Fd()), here, buf)
		if errors.Is(err, unix.EINVAL) {
			continue // no link
		}
		if err != nil {
			return "", err
		}
		target := string(buf[:n])
		if !path.IsAbs(target) {
			target = path.Join(storepath.Dir, path.Dir(here), target)
		}
		return path.Join(append([]string{target}, parts[i+1:]...)...), nil
	}
	return "", nil
}
