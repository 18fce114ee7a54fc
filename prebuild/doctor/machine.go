package doctor

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"vm-prebuild/prebuild"
	"vm-prebuild/testrun/accel"
	"vm-prebuild/testrun/suite"
)

// machine is what is examined, and as whom. [thisMachine] returns the one that
// the program runs on; tests make others up.
type machine struct {
	root       string   // of the file system
	user       string   // name of the user
	isRoot     bool     // whether the user is root
	userGroups []string // names of the user's groups
	storeDir   string   // "/nix/store"
	confDir    string   // of Nix: "/etc/nix"
	tmpDir     string   // where tests and builds have their temporary files

	cores     func() int                                         // processors that may be used
	memoryMiB func() (int, error)                                // memory that can be used without swapping
	kvm       func(context.Context) accel.Result                 // tries a guest
	qemu      func(context.Context) (path, version string)       // of PATH; empty if there is none
	version   func(context.Context) (prebuild.Version, error)    // of Nix
	settings  func(context.Context) (prebuild.Settings, error)   // of Nix
	ping      func(context.Context) (prebuild.StoreInfo, error)  // connects to Nix's store
	volume    func(dir string) (volumeInfo, error)               // the file system of a directory
	reflink   func(dir string) (able bool, fs string, err error) // whether files there can share data
}

// thisMachine is the machine that the program runs on, as its user sees it. What
// nix says is asked for once.
func thisMachine() *machine {
	var nix prebuild.Nix
	m := &machine{
		root:      "/",
		user:      cmp.Or(os.Getenv("USER"), "this user"),
		isRoot:    os.Geteuid() == 0,
		storeDir:  cmp.Or(os.Getenv("NIX_STORE_DIR"), "/nix/store"),
		confDir:   cmp.Or(os.Getenv("NIX_CONF_DIR"), "/etc/nix"),
		tmpDir:    os.TempDir(),
		cores:     func() int { return runtime.GOMAXPROCS(0) },
		memoryMiB: suite.AvailableMemoryMiB,
		kvm:       accel.Probe,
		qemu:      findQEMU,
		version:   once(nix.Version),
		settings:  once(nix.Settings),
		ping:      once(nix.PingStore),
		volume:    volume,
		reflink:   reflink,
	}
	if me, err := user.Current(); err == nil {
		m.user = me.Username
		ids, _ := me.GroupIds() // without them, the user has no more than its name
		for _, id := range ids {
			if group, err := user.LookupGroupId(id); err == nil {
				m.userGroups = append(m.userGroups, group.Name)
			}
		}
	}
	return m
}

// once makes the first call of f the only one, and bounds it.
func once[T any](f func(context.Context) (T, error)) func(context.Context) (T, error) {
	var mu sync.Mutex
	var called bool
	var value T
	var err error
	return func(ctx context.Context) (T, error) {
		mu.Lock()
		defer mu.Unlock()
		if !called {
			called = true
			ctx, cancel := context.WithTimeoutCause(ctx, nixDeadline, fmt.Errorf("no answer within %v", nixDeadline))
			defer cancel()
			value, err = f(ctx)
		}
		return value, err
	}
}

// path is where a file of the machine is.
func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

// setting is what makes Nix take a line of nix.conf.
func (m *machine) setting(name, value string) string {
	if _, err := os.Stat(m.path("/etc/NIXOS")); err == nil {
		return "configuration.nix: nix.settings." + name + " = " + nixValue(value) + ";"
	}
	line := m.confDir + "/nix.conf: " + name + " = " + value
	if _, err := os.Stat(m.path("/nix/var/nix/daemon-socket/socket")); err == nil {
		line += " # and systemctl restart nix-daemon"
	}
	return line
}

// nixValue is a value of nix.conf in the Nix language: lists are the values of
// the settings that end in features, paths or users, which are added to here.
func nixValue(value string) string {
	if value == "true" || value == "false" {
		return value
	}
	return `[ "` + strings.Join(strings.Fields(value), `" "`) + `" ]`
}

// group is an entry of /etc/group.
type group struct {
	name, id string
	members  []string
}

func (m *machine) groups() []group {
	f, err := os.Open(m.path("/etc/group"))
	if err != nil {
		return nil
	}
	defer f.Close()
	var groups []group
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) == 4 {
			groups = append(groups, group{fields[0], fields[2], strings.FieldsFunc(fields[3], func(r rune) bool { return r == ',' })})
		}
	}
	return groups
}

// group returns the group with that name.
func (m *machine) group(name string) (group, bool) {
	groups := m.groups()
	i := slices.IndexFunc(groups, func(g group) bool { return g.name == name })
	if i < 0 {
		return group{}, false
	}
	return groups[i], true
}
