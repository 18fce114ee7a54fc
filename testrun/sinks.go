package testrun

import (
	"path/filepath"
	"regexp"
	"strings"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/report"
)

// openSinks opens the reports that o asks for. The page is among them always:
// a test that fails leaves one. A report that cannot be written is a
// *[ConfigError], and nothing is left of the others.
func openSinks(cfg Config, o Options, serial func() bool) (_ []event.Sink, page *report.Page, err error) {
	page = report.NewPage(title(cfg))
	sinks := []event.Sink{report.NewTerminal(o.Log, o.LogLevel, o.Colours, serial), page}
	defer func() {
		if err != nil {
			for _, s := range sinks {
				_ = s.Close() // nothing has been reported yet
			}
		}
	}()
	for _, r := range []struct {
		path string
		open func(path string) (event.Sink, error)
	}{
		{fromWorkDir(o.XMLLog), func(p string) (event.Sink, error) { return report.NewXMLLog(p, o.LogLevel) }},
		{o.JUnit, func(p string) (event.Sink, error) { return report.NewJUnit(p, o.LogLevel) }},
		{o.JSONL, func(p string) (event.Sink, error) { return report.NewJSONLines(p) }},
		{o.HTML, func(p string) (event.Sink, error) { return nil, page.WriteAtClose(p) }},
		{o.SerialDir, func(p string) (event.Sink, error) { return report.NewSerialDir(p) }},
	} {
		if r.path == "" {
			continue
		}
		if !filepath.IsAbs(r.path) {
			r.path = filepath.Join(cfg.OutDir, r.path)
		}
		s, err := r.open(r.path)
		if err != nil {
			return nil, nil, &ConfigError{Err: err}
		}
		if s != nil {
			sinks = append(sinks, s)
		}
	}
	return sinks, page, nil
}

// fromWorkDir makes a name absolute that is relative to the working directory,
// as $LOGFILE is.
func fromWorkDir(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// derivation is the name of a test in the paths that nixpkgs' run.nix and
// driver.nix give it.
var derivation = regexp.MustCompile(`/[0-9a-z]{32}-(?:vm-test-run|nixos-test-driver)-([^/]+)`)

// title is the name of the test as far as its paths tell it.
func title(cfg Config) string {
	for _, path := range []string{cfg.OutDir, cfg.ScriptPath} {
		if m := derivation.FindStringSubmatch(path); m != nil {
			return m[1]
		}
	}
	if name := filepath.Base(cfg.ScriptPath); !strings.HasSuffix(name, "-test-script") && cfg.ScriptPath != "" {
		return name
	}
	names := make([]string, len(cfg.Machines))
	for i, m := range cfg.Machines {
		names[i] = m.Name
	}
	return "Test of " + strings.Join(names, ", ")
}
