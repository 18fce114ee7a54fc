package prebuild

import (
	"context"
	"slices"
	"strings"
)

// Settings are what nix.conf, NIX_CONFIG and whatever else there is tell the nix
// command, by name. Those of a list are separated by spaces.
type Settings map[string]string

// List is a setting that is a list.
func (s Settings) List(name string) []string { return strings.Fields(s[name]) }

// Has says whether a setting that is a list has an entry.
func (s Settings) Has(name, entry string) bool { return slices.Contains(s.List(name), entry) }

// showSettings are the commands that show the settings, of newer Nix and of older.
var showSettings = [][]string{{"config", "show"}, {"show-config"}}

// Settings asks nix for its settings. The experimental features are those that
// are enabled without our doing.
func (n *Nix) Settings(ctx context.Context) (settings Settings, err error) {
	const experimentalFeatures, command = "experimental-features", "nix-command"
	for _, words := range showSettings {
		stdout, _, err := n.runPlain(ctx, nil, words[0], words[1:]...)
		if err == nil {
			return parseSettings(string(stdout)), nil
		}
	}
	// To show the settings is experimental itself.
	for _, words := range showSettings {
		var stdout []byte
		stdout, _, err = n.runPlain(ctx, nil, words[0], append(words[1:], "--extra-experimental-features", command)...)
		if err == nil {
			settings = parseSettings(string(stdout))
			features := slices.DeleteFunc(settings.List(experimentalFeatures), func(f string) bool { return f == command })
			settings[experimentalFeatures] = strings.Join(features, " ")
			return settings, nil
		}
	}
	return nil, err
}

// parseSettings reads lines such as "sandbox = true".
func parseSettings(text string) Settings {
	settings := Settings{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, " ="); ok {
			settings[name] = strings.TrimSpace(value)
		}
	}
	return settings
}

// StoreInfo is what nix says of the store that it uses.
type StoreInfo struct {
	URL     string // "local", "daemon", …
	Trusted *bool  // whether a daemon trusts this user; nil when nix does not say
}

// PingStore connects to the store that nix uses, through the daemon if there is
// one.
func (n *Nix) PingStore(ctx context.Context) (info StoreInfo, err error) {
	var stdout, stderr []byte
	for _, verb := range []string{"info", "ping"} { // of newer Nix, and of all
		if stdout, stderr, err = n.run(ctx, nil, "store", verb); err == nil {
			break
		}
	}
	if err != nil {
		return info, err
	}
	for line := range strings.Lines(string(stdout) + string(stderr)) {
		line = strings.TrimSpace(line)
		if url, ok := strings.CutPrefix(line, "Store URL: "); ok {
			info.URL = url
		}
		if value, ok := strings.CutPrefix(line, "Trusted: "); ok {
			trusted := value == "1"
			info.Trusted = &trusted
		}
	}
	return info, nil
}
