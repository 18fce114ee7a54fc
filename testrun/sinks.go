package testrun

import (
	"path/filepath"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/report"
)

// openSinks opens the reports that o asks for. One that cannot be written is a
// *[ConfigError], and nothing is left of the others.
func openSinks(cfg Config, o Options, serial func() bool) (_ []event.Sink, err error) {
	sinks := []event.Sink{report.NewTerminal(o.Log, o.LogLevel, o.Colours, serial)}
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
		{o.XMLLog, func(p string) (event.Sink, error) { return report.NewXMLLog(p, o.LogLevel) }},
		{o.JUnit, func(p string) (event.Sink, error) { return report.NewJUnit(p, o.LogLevel) }},
		{o.JSONL, func(p string) (event.Sink, error) { return report.NewJSONLines(p) }},
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
			return nil, &ConfigError{Err: err}
		}
		sinks = append(sinks, s)
	}
	return sinks, nil
}
