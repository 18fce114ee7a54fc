package buildhook

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vm-prebuild/buildhook/admission"
	"vm-prebuild/buildhook/derivation"
	"vm-prebuild/buildhook/protocol"
	"vm-prebuild/storedb/mountns"
)

func TestMain(m *testing.M) {
	mountns.Main()
	os.Exit(m.Run())
}

func TestStoreRoot(t *testing.T) {
	for _, name := range []string{"NIX_STORE_DIR", "NIX_STATE_DIR"} {
		t.Setenv(name, "")
	}
	for setting, want := range map[string]string{
		"": "/", "auto": "/", "daemon": "/", "local": "/",
		"/srv/store": "/srv/store", "/srv/store/": "/srv/store", "local?root=/srv/store": "/srv/store", "local:///srv/store": "/srv/store",
		"/srv/store?state=/elsewhere": "", "local?real=/x": "", "ssh://host": "", "dummy://": "", "local?root=relative": "", "relative": "", "local?root=/a;%": "",
	} {
		got, err := storeRoot(setting)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", setting, got, err, want)
		}
	}
	t.Setenv("NIX_STATE_DIR", "/elsewhere")
	if _, err := storeRoot("auto"); err == nil {
		t.Error("a store with its state elsewhere is taken for the usual one")
	}
	if root, err := storeRoot("/srv/store"); err != nil || root != "/srv/store" {
		t.Errorf("%q, %v: the variable does not concern this store", root, err)
	}
}

// newHook is a hook that nobody has started.
func newHook(t *testing.T, settings protocol.Settings) *hook {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "hook")
	return &hook{
		Options: Options{Dir: dir, TCG: true}, settings: settings, log: &log{},
		limit: limit{budget: admission.Budget{MemoryMiB: 2048, Cores: 2}},
	}
}

// TestDecide asks about derivations in a store, some of which cannot be built here.
func TestDecide(t *testing.T) {
	const hash = "0123456789abcdfghijklmnpqrsvwxyz"
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "nix/store"), 0o755); err != nil {
		t.Fatal(err)
	}
	drv := func(text string) string {
		path := "/nix/store/" + hash + "-vm-test.drv"
		file := filepath.Join(root, path)
		err := os.RemoveAll(file)
		if target, link := strings.CutPrefix(text, "-> "); err == nil && link {
			err = os.Symlink(target, file)
		} else if err == nil {
			err = os.WriteFile(file, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := `Derive([("out","/nix/store/` + hash + `-vm-test","","")],[],[],"x86_64-linux","/bin/sh",[],[("name","vm-test")])`
	elsewhere := filepath.Join(root, "elsewhere")
	if err := os.WriteFile(elsewhere, []byte(plain), 0o644); err != nil {
		t.Fatal(err)
	}
	settings := func(changes ...string) protocol.Settings {
		s := protocol.Settings{"store": root, "system": "x86_64-linux", "sandbox": "true", "system-features": "benchmark"}
		for i := 0; i < len(changes); i += 2 {
			s[changes[i]] = changes[i+1]
		}
		return s
	}
	for name, tt := range map[string]struct {
		settings protocol.Settings
		text     string
		features string
		system   string
		drv      string // its path, if it is not the usual one
		change   func(*hook)
		mine     bool
		want     string // in the reason
	}{
		"a test":                      {features: "nixos-test", mine: true, want: "it needs the feature nixos-test"},
		"no test":                     {features: "big-parallel", want: "not a test"},
		"a store elsewhere":           {features: "nixos-test", drv: "/gnu/store/x.drv", want: "/gnu/store/x.drv"},
		"options that cannot be used": {features: "nixos-test", change: func(h *hook) { h.Unusable = errors.New("no such file") }, want: "no such file"},
		"another system":              {features: "nixos-test", system: "aarch64-linux", want: "it is for aarch64-linux"},
		"an extra platform":           {features: "nixos-test", system: "i686-linux", settings: settings("extra-platforms", "x i686-linux"), mine: true},
		"content-addressed":           {features: "ca-derivations nixos-test", want: "not known before it is built"},
		"a fixed output":              {features: "nixos-test", text: strings.Replace(plain, `"",""`, `"sha256","00"`, 1), want: "a fixed hash"},
		"no output path":              {features: "nixos-test", text: strings.Replace(plain, "/nix/store/"+hash+"-vm-test", "", 1), want: "output out: "},
		"an output elsewhere":         {features: "nixos-test", text: strings.Replace(plain, "/nix/store/"+hash+"-vm-test", "/etc/passwd", 1), want: "output out: "},
		"no derivation":               {features: "nixos-test", text: "x", want: "not a derivation"},
		"a link":                      {features: "nixos-test", text: "-> " + elsewhere, want: "symbolic links"},
		"a remote store":              {features: "nixos-test", settings: settings("store", "ssh://x"), want: `Nix's setting store is "ssh://x"`},
		"no sandbox, and possible":    {features: "benchmark nixos-test", settings: settings("sandbox", "false", "system-features", "benchmark nixos-test"), want: "without a sandbox"},
		"no sandbox, but impossible":  {features: "nixos-test", settings: settings("sandbox", "false"), mine: true},
		"not in a sandbox":            {features: "nixos-test", settings: settings("sandbox", "relaxed"), text: strings.Replace(plain, `[("name"`, `[("__noChroot","1"),("name"`, 1), want: "without a sandbox"},
		"another feature":             {features: "nixos-test other", want: "it needs the feature other, too"},
		"a feature of Nix":            {features: "benchmark nixos-test", mine: true},
		"users of its own":            {features: "nixos-test uid-range", want: "auto-allocate-uids"},
		"too little room":             {features: "nixos-test", change: func(h *hook) { h.limit.budget.MemoryMiB = 1000 }, want: "more than the 1000 MiB"},
		"others may enter": {features: "nixos-test", change: func(h *hook) {
			if err := os.MkdirAll(h.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}, want: "others may enter it"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.settings == nil {
				tt.settings = settings()
			}
			if tt.text == "" {
				tt.text = plain
			}
			if tt.system == "" {
				tt.system = "x86_64-linux"
			}
			h := newHook(t, tt.settings)
			if tt.change != nil {
				tt.change(h)
			}
			if err := mountns.Probe(t.Context()); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			path := drv(tt.text)
			if tt.drv != "" {
				path = tt.drv
			}
			d := h.decide(t.Context(), protocol.Try{System: tt.system, Drv: path, Features: strings.Fields(tt.features)})
			if d.mine != tt.mine || !strings.Contains(d.reason, tt.want) {
				t.Errorf("mine: %v, %q; want %v, %q", d.mine, d.reason, tt.mine, tt.want)
			}
			if d.mine && d.demand != (admission.Demand{Machines: 1, MemoryMiB: 1024, Cores: 1}) {
				t.Errorf("it is taken to need %+v", d.demand)
			}
		})
	}
}

func TestHasBuilders(t *testing.T) {
	file := filepath.Join(t.TempDir(), "machines")
	h := newHook(t, protocol.Settings{})
	for setting, want := range map[string]bool{"": false, "@" + file: false, " ; \n": false, "ssh://x": true, "@" + file + " ; ssh://x": true} {
		h.settings["builders"] = setting
		if got := h.hasBuilders(); got != want {
			t.Errorf("%q: %v", setting, got)
		}
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.settings["builders"] = "@" + file
	if !h.hasBuilders() {
		t.Error("the file is there now")
	}
}

// TestConfig: what decides about a build is passed on, and nothing can add lines.
func TestConfig(t *testing.T) {
	h := newHook(t, protocol.Settings{
		"cores": "3", "build-users-group": "", "build-dir": "", "substituters": "https://x", "builders": "ssh://x", "post-build-hook": "/x", "sandbox": "false",
	})
	config, err := h.config([]string{"kvm", "nixos-test"}, []string{"/bin/sh=/x", "/shown"})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(config), "\n")
	for _, want := range []string{
		"cores = 3", "build-users-group = ", "sandbox = true", "sandbox-paths = /bin/sh=/x /shown", "system-features = kvm nixos-test",
		"substituters = ", "builders = ", "post-build-hook = ",
	} {
		n := 0
		for _, line := range lines {
			if name, _, _ := strings.Cut(want, " = "); strings.HasPrefix(line, name+" = ") {
				n++
				if line != want {
					t.Errorf("%q, want %q", line, want)
				}
			}
		}
		if n != 1 {
			t.Errorf("%q is there %d times", want, n)
		}
	}
	if strings.Contains(config, "build-dir") {
		t.Error("a directory without a name")
	}
	h.settings["cores"] = "3\nsandbox = false"
	if _, err := h.config(nil, nil); err == nil {
		t.Error("a setting brings its own line")
	}
}

// TestFeatures: the Nix that builds offers what the one that asks does, and what the
// test needs.
func TestFeatures(t *testing.T) {
	h := newHook(t, protocol.Settings{"system-features": "kvm benchmark"})
	h.Nix = t.TempDir()
	if err := os.WriteFile(filepath.Join(h.Nix, "nix-store"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	d := decision{try: protocol.Try{Features: []string{"benchmark", "nixos-test"}}}
	if err := h.prepare(&d); err != nil || !strings.Contains("\n"+d.config, "\nsystem-features = benchmark kvm nixos-test\n") {
		t.Errorf("%v\n%s", err, d.config)
	}
}

func TestSandboxPaths(t *testing.T) {
	h := newHook(t, protocol.Settings{"sandbox-paths": "/b /a=/x"})
	h.SandboxPaths = []string{"/shown"}
	got := h.sandboxPaths(decision{emulated: "no KVM", derivation: &derivation.Derivation{}})
	want := "/a=/x /b /shown"
	if _, err := os.Stat(devKVM); err == nil {
		want = "/a=/x /b /dev/kvm=/dev/null /shown"
	}
	if strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
}

func TestClamp(t *testing.T) {
	alone, err := limitOf(Budget{MemoryMiB: 1000}, "/")
	strict, strictErr := limitOf(Budget{MemoryMiB: 1000, Cores: 2}, "/")
	if err != nil || strictErr != nil {
		t.Fatal(err, strictErr)
	}
	d := admission.Demand{Machines: 3, MemoryMiB: 900, Cores: 1 << 10}
	if got, err := alone.clamp(d); err != nil || got.Cores != alone.budget.Cores {
		t.Errorf("%+v, %v: a test with many cores does not run alone", got, err)
	}
	if _, err := strict.clamp(d); err == nil || !strings.Contains(err.Error(), "its 3 machines have 1024 cores together, more than the 2") {
		t.Error(err)
	}
	d.MemoryMiB = 1001
	if _, err := alone.clamp(d); err == nil || !strings.Contains(err.Error(), "1001 MiB") {
		t.Error(err)
	}
}
