package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"

	"vm-prebuild/prebuild"
)

// oldestMajor and oldestMinor are of the oldest Nix that we work with.
const oldestMajor, oldestMinor = 2, 8

// nixVersion finds out whether there is a Nix that can be used. Where there is
// none, the other checks that ask it have nothing to say.
func nixVersion(ctx context.Context, m *machine) Result {
	const install = "install Nix 2.8 or newer: apt install nix-bin, or the installer of nixos.org"
	version, err := m.version(ctx)
	if errors.Is(err, prebuild.ErrNoNix) {
		return missing(install, "there is no nix command in PATH")
	}
	if err != nil {
		return missing(install, "nix does not work: %v", err)
	}
	if !version.AtLeast(oldestMajor, oldestMinor) {
		return missing(install, "Nix %v is older than %d.%d", version, oldestMajor, oldestMinor)
	}
	if _, err := m.settings(ctx); err != nil {
		return missing("mend what nix says of its settings: nix --extra-experimental-features nix-command show-config",
			"Nix %v does not show its settings: %v", version, err)
	}
	return ok("Nix %v is new enough", version)
}

// store connects to the store, through the daemon if there is one.
func store(ctx context.Context, m *machine) Result {
	if _, err := m.version(ctx); err != nil {
		return Result{}
	}
	info, err := m.ping(ctx)
	if err != nil {
		remedy := "systemctl restart nix-daemon"
		if _, failed := errors.AsType[*prebuild.NixError](err); failed && !strings.Contains(err.Error(), "cannot connect") {
			remedy = "nix --extra-experimental-features nix-command store ping # tells more"
		}
		return missing(remedy, "Nix does not reach its store: %v", err)
	}
	return ok("Nix reaches its store (%s)", info.URL)
}

// trustedUser finds out whether the daemon takes this user's settings.
func trustedUser(ctx context.Context, m *machine) Result {
	settings, err := m.settings(ctx)
	if err != nil {
		return Result{}
	}
	info, err := m.ping(ctx)
	if err != nil || isLocal(info) {
		return Result{} // without a daemon there is nobody to be trusted by
	}
	trusted := m.isRoot || slices.ContainsFunc(settings.List("trusted-users"), func(entry string) bool {
		name, isGroup := strings.CutPrefix(entry, "@")
		return entry == "*" || entry == m.user || isGroup && slices.Contains(m.userGroups, name)
	})
	if info.Trusted != nil {
		trusted = *info.Trusted // what the daemon says is what counts
	}
	if !trusted {
		return warning(m.setting("extra-trusted-users", m.user),
			"the daemon does not trust %s, and takes neither binary caches nor sandbox-paths nor system-features nor paths without signatures from that user", m.user)
	}
	return ok("the daemon trusts %s", m.user)
}

// isLocal says whether nix writes to its store itself.
func isLocal(info prebuild.StoreInfo) bool { return strings.HasPrefix(info.URL, "local") }

// buildGroup is the name of the group whose members Nix builds as; empty if it
// builds as the user that calls it, or as users that it makes up.
func (m *machine) buildGroup(ctx context.Context) string {
	settings, err := m.settings(ctx)
	if err != nil || settings["auto-allocate-uids"] == "true" {
		return ""
	}
	info, err := m.ping(ctx)
	if err != nil || isLocal(info) && !m.isRoot {
		return ""
	}
	return settings["build-users-group"]
}

// buildUsers finds out whether there are users to build as. A Nix that runs as
// root builds nothing without them.
func buildUsers(ctx context.Context, m *machine) Result {
	name := m.buildGroup(ctx)
	if name == "" {
		return Result{}
	}
	remedy := fmt.Sprintf("groupadd --system %[1]s; for n in 1 2 3 4 5 6 7 8; do useradd --system --no-create-home --gid %[1]s --groups %[1]s %[1]s$n; done", name)
	builders, found := m.group(name)
	if !found {
		return missing(remedy, "Nix builds as the users of the group %s, which does not exist", name)
	}
	if len(builders.members) == 0 {
		return missing(remedy, "Nix builds as the users of the group %s, which has none", name)
	}
	return ok("Nix builds as %d users", len(builders.members))
}

// lacking returns those of the wanted entries that a setting does not have.
func lacking(settings prebuild.Settings, name string, wanted ...string) (lacks []string) {
	for _, w := range wanted {
		if !settings.Has(name, w) {
			lacks = append(lacks, w)
		}
	}
	return lacks
}

func experimentalFeatures(ctx context.Context, m *machine) Result {
	settings, err := m.settings(ctx)
	if err != nil {
		return Result{}
	}
	if lacks := lacking(settings, "experimental-features", "nix-command", "flakes"); len(lacks) > 0 {
		features := strings.Join(lacks, " ")
		return warning(m.setting("extra-experimental-features", features),
			"nix build and nix flake check need the experimental features %s; vm-prebuild enables them for itself", features)
	}
	return ok("nix-command and flakes are enabled")
}

// systemFeatures finds out whether Nix builds tests, here or on another machine.
func systemFeatures(ctx context.Context, m *machine) Result {
	settings, err := m.settings(ctx)
	if err != nil {
		return Result{}
	}
	needed := []string{"nixos-test", "kvm"}
	lacks := lacking(settings, "system-features", needed...)
	if len(lacks) == 0 {
		return ok("Nix builds what requires the features nixos-test and kvm")
	}
	if uri := m.remoteBuilder(settings, needed); uri != "" {
		return ok("Nix has what requires the features nixos-test and kvm built by %s", uri)
	}
	if hasBuildHook(settings) {
		return ok("nix-vm-build-hook is asked about what requires the features nixos-test and kvm")
	}
	if m.kvmIsTheDaemons(ctx, lacks) {
		return ok("the daemon finds out itself whether it has the feature kvm: %s may not open %s, and so does not know", m.user, kvmDevice)
	}
	features := strings.Join(lacks, " ")
	return missing(m.setting("extra-system-features", features),
		"Nix refuses to build tests: its system-features lack %s", features)
}

// kvmIsTheDaemons says whether only kvm is lacking, for the reason that this user
// may not open the device: a process of Nix has the feature by default if it may, and
// it is the daemon that builds.
func (m *machine) kvmIsTheDaemons(ctx context.Context, lacks []string) bool {
	info, err := m.ping(ctx)
	if err != nil || isLocal(info) || !slices.Equal(lacks, []string{"kvm"}) {
		return false
	}
	f, err := os.OpenFile(m.path(kvmDevice), os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return errors.Is(err, fs.ErrPermission)
}

// hasBuildHook says whether Nix asks our build hook; its NixOS module calls it by
// a script whose name ends alike.
func hasBuildHook(settings prebuild.Settings) bool {
	return strings.Contains(settings["build-hook"], "vm-build-hook")
}

// buildHook finds out who bounds the tests that Nix builds at once. The setting of
// a daemon that does not tell it is not seen here.
func buildHook(ctx context.Context, m *machine) Result {
	settings, err := m.settings(ctx)
	if err != nil || !hasBuildHook(settings) {
		return Result{}
	}
	return ok("VM tests go to the build hook (nix-vm-build-hook status shows them)")
}

// remoteBuilder is a machine that builds for this one and has the features.
func (m *machine) remoteBuilder(settings prebuild.Settings, needed []string) string {
	text := settings["builders"]
	if file, isFile := strings.CutPrefix(text, "@"); isFile {
		content, _ := os.ReadFile(m.path(file)) // no such file means no builders
		text = string(content)
	}
	system := map[string]string{"amd64": "x86_64-linux", "arm64": "aarch64-linux"}[runtime.GOARCH]
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		line, _, _ = strings.Cut(line, "#")
		// URI, systems, key, jobs, speed, features, mandatory features, host key
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "-" && !slices.Contains(strings.Split(fields[1], ","), system) {
			continue // "-" is this machine's
		}
		features := strings.Split(fields[5], ",")
		if len(fields) > 6 {
			features = append(features, strings.Split(fields[6], ",")...)
		}
		if !slices.ContainsFunc(needed, func(f string) bool { return !slices.Contains(features, f) }) {
			return fields[0]
		}
	}
	return ""
}

// uidRange finds out whether Nix builds tests that have containers.
func uidRange(ctx context.Context, m *machine) Result {
	settings, err := m.settings(ctx)
	if err != nil {
		return Result{}
	}
	if version, err := m.version(ctx); err != nil || !version.AtLeast(2, 12) {
		return warning("install Nix 2.12 or newer", "this Nix does not know the feature uid-range, which tests with containers need")
	}
	var remedies []string
	if lacks := lacking(settings, "experimental-features", "auto-allocate-uids", "cgroups"); len(lacks) > 0 {
		remedies = append(remedies, m.setting("extra-experimental-features", strings.Join(lacks, " ")))
	}
	if settings["auto-allocate-uids"] != "true" {
		remedies = append(remedies, m.setting("auto-allocate-uids", "true"))
	}
	if !settings.Has("system-features", "uid-range") {
		remedies = append(remedies, m.setting("extra-system-features", "uid-range"))
	}
	if len(remedies) > 0 {
		return warning(strings.Join(remedies, "\n"), "Nix does not build tests with containers, which need the feature uid-range")
	}
	return ok("Nix builds what requires the feature uid-range")
}

func sandbox(ctx context.Context, m *machine) Result {
	settings, err := m.settings(ctx)
	if err != nil {
		return Result{}
	}
	switch settings["sandbox"] {
	case "true":
		return ok("builds run in a sandbox")
	case "relaxed":
		return warning(m.setting("sandbox", "true"), "a build may ask to run outside of the sandbox")
	default:
		return warning(m.setting("sandbox", "true"), "builds run without a sandbox: a test that passes may depend on this machine's files and network")
	}
}

// sandboxPaths finds out whether the paths that builds are to see exist: if one
// does not, no build starts.
func sandboxPaths(ctx context.Context, m *machine) Result {
	settings, err := m.settings(ctx)
	if err != nil || settings["sandbox"] == "false" {
		return Result{}
	}
	paths := settings.List("sandbox-paths")
	for _, entry := range paths {
		target, source, found := strings.Cut(entry, "=")
		if !found {
			source = target
		}
		if _, optional := strings.CutSuffix(source, "?"); optional {
			continue
		}
		if _, err := os.Stat(m.path(source)); err != nil {
			return missing("remove "+entry+" from sandbox-paths in "+m.confDir+"/nix.conf, or put a ? behind it",
				"no build starts: sandbox-paths has %s, which cannot be found", source)
		}
	}
	return ok("sandbox-paths has %d paths, and they exist", len(paths))
}

// devnet finds out whether builds see the devices that connect machines and
// containers.
func devnet(ctx context.Context, m *machine) Result {
	settings, err := m.settings(ctx)
	if err != nil || settings["sandbox"] == "false" {
		return Result{}
	}
	for _, entry := range settings.List("sandbox-paths") {
		target, _, _ := strings.Cut(strings.TrimSuffix(entry, "?"), "=")
		if target == "/dev" || target == "/dev/net" || target == "/dev/net/tun" {
			return ok("builds see %s", target)
		}
	}
	return warning(m.setting("extra-sandbox-paths", "/dev/net"), "builds do not see /dev/net, which tests need that connect machines and containers")
}
