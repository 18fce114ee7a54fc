package doctor

import (
	"bufio"
	"cmp"
	"context"
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

// Machine is what is examined, and as whom. [ThisMachine] returns the one that
// the program runs on; tests make others up.
type Machine struct {
	Root     string   // of the file system
	User     string   // name of the user
	IsRoot   bool     // whether the user is root
	Groups   []string // names of the user's groups
	StoreDir string   // "/nix/store"
	ConfDir  string   // of Nix: "/etc/nix"
	TmpDir   string   // where tests and builds have their temporary files

	Cores     func() int                                         // processors that may be used
	MemoryMiB func() (int, error)                                // memory that can be used without swapping
	KVM       func(context.Context) accel.Result                 // tries a guest
	QEMU      func(context.Context) (path, version string)       // of PATH; empty if there is none
	Version   func(context.Context) (prebuild.Version, error)    // of Nix
	Settings  func(context.Context) (prebuild.Settings, error)   // of Nix
	Ping      func(context.Context) (prebuild.StoreInfo, error)  // connects to Nix's store
	Volume    func(dir string) (Volume, error)                   // the file system of a directory
	Reflink   func(dir string) (able bool, fs string, err error) // whether files there can share data
}

// ThisMachine is the machine that the program runs on, as its user sees it. What
// nix says is asked for once.
func ThisMachine() *Machine {
	var nix prebuild.Nix
	m := &Machine{
		Root:      "/",
		User:      "root",
		IsRoot:    os.Geteuid() == 0,
		StoreDir:  cmp.Or(os.Getenv("NIX_STORE_DIR"), "/nix/store"),
		ConfDir:   cmp.Or(os.Getenv("NIX_CONF_DIR"), "/etc/nix"),
		TmpDir:    os.TempDir(),
		Cores:     func() int { return runtime.GOMAXPROCS(0) },
		MemoryMiB: suite.AvailableMemoryMiB,
		KVM:       accel.Probe,
		QEMU:      findQEMU,
		Version:   once(nix.Version),
		Settings:  once(nix.Settings),
		Ping:      once(nix.PingStore),
		Volume:    volume,
		Reflink:   reflink,
	}
	if me, err := user.Current(); err == nil {
		m.User = me.Username
		ids, _ := me.GroupIds() // without them, the user has no more than its name
		for _, id := range ids {
			if group, err := user.LookupGroupId(id); err == nil {
				m.Groups = append(m.Groups, group.Name)
			}
		}
	}
	return m
}

// once makes the first call of f the only one.
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
			value, err = f(ctx)
		}
		return value, err
	}
}

// path is where a file of the machine is.
func (m *Machine) path(name string) string { return filepath.Join(m.Root, name) }

// setting is what makes Nix take a line of nix.conf.
func (m *Machine) setting(name, value string) string {
	if _, err := os.Stat(m.path("/etc/NIXOS")); err == nil {
		return "configuration.nix: nix.settings." + name + " = " + nixValue(value) + ";"
	}
	line := m.ConfDir + "/nix.conf: " + name + " = " + value
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

func (m *Machine) groups() []group {
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

// find returns the first group that is meant.
func find(groups []group, meant func(group) bool) (group, bool) {
	i := slices.IndexFunc(groups, meant)
	if i < 0 {
		return group{}, false
	}
	return groups[i], true
}
