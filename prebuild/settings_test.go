package prebuild

import (
	"os"
	"strings"
	"testing"
)

// With a real Nix: its settings as they are, whatever we enable for ourselves.
func TestSettings(t *testing.T) {
	needNix(t)
	for _, features := range []string{"", "flakes", "nix-command", "nix-command flakes"} {
		t.Setenv("NIX_CONFIG", "experimental-features = "+features+"\nsystem-features = kvm x\nsandbox = relaxed\nsandbox-paths = /a=/b? /c\n")
		var nix Nix
		s, err := nix.Settings(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, feature := range []string{"flakes", "nix-command"} {
			if got := s.Has("experimental-features", feature); got != strings.Contains(features, feature) {
				t.Errorf("enabled %q; %s: %t", features, feature, got)
			}
		}
		if !s.Has("system-features", "kvm") || s.Has("system-features", "nixos-test") || s["sandbox"] != "relaxed" {
			t.Errorf("%q, %q", s["system-features"], s["sandbox"])
		}
		if paths := s.List("sandbox-paths"); len(paths) != 2 || paths[0] != "/a=/b?" {
			t.Errorf("sandbox-paths: %q", paths)
		}
	}
	t.Setenv("NIX_CONFIG", "oops\n")
	var nix Nix
	if _, err := nix.Settings(t.Context()); err == nil || !strings.Contains(err.Error(), "oops") {
		t.Errorf("bad settings: %v", err)
	}
}

func TestPingStore(t *testing.T) {
	needNix(t)
	var nix Nix
	info, err := nix.PingStore(t.Context())
	if err != nil || info.URL != "local" {
		t.Errorf("%+v, %v", info, err)
	}
	t.Setenv("NIX_REMOTE", "daemon")
	t.Setenv("NIX_DAEMON_SOCKET_PATH", os.DevNull)
	if _, err := nix.PingStore(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot connect to socket") {
		t.Errorf("no daemon: %v", err)
	}
}
