package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"vm-prebuild/cmd/internal/cli"
)

type runCommand struct {
	Lines    string  `default:"." placeholder:"REGEX" help:"Measure the lines of the table that match. Default: all."`
	Runs     int     `default:"5" help:"Timed runs of each side of a line; medians are compared. Default: ${default}."`
	Scale    float64 `default:"1" help:"Size of the closures. Ratios are judged at 1 only: targets are about closures of that size. Default: ${default}."`
	Bin      string  `default:"bin" placeholder:"DIR" help:"Directory of our programs. Default: ${default}."`
	Markdown string  `placeholder:"FILE" help:"Write the results as a document, too."`
	JSON     bool    `name:"json" help:"Print JSON instead of text."`
}

// Run measures.
func (c *runCommand) Run(ctx context.Context, out *cli.IO) error {
	wanted, err := regexp.Compile(c.Lines)
	if err != nil {
		return cli.Usagef("--lines: %w", err)
	}
	if c.Runs < 1 || c.Scale <= 0 || c.Scale > 1 {
		return cli.Usagef("--runs must be at least 1, and --scale in (0, 1]")
	}
	selected := selectLines(jobs(c.Scale), wanted)
	if len(selected) == 0 {
		return cli.Usagef("no line matches %q", c.Lines)
	}
	l, err := enterLab()
	if err != nil {
		return err
	}
	report, measureErr := c.measure(ctx, l, selected, out)
	if err := l.close(); err != nil || report == nil {
		return errors.Join(measureErr, err)
	}
	// What was measured before an error or a signal is worth printing, too.
	if c.JSON {
		err = out.JSON(report)
	} else {
		_, err = fmt.Fprint(out.Stdout, report.text())
	}
	if err := errors.Join(measureErr, err); err != nil {
		return err
	}
	if c.Markdown != "" {
		if err := report.writeMarkdown(c.Markdown); err != nil {
			return err
		}
	}
	if bad := report.bad(); len(bad) > 0 {
		return cli.WithExitCode(cli.ExitFailed, fmt.Errorf("missed: %s", strings.Join(bad, "; ")))
	}
	return nil
}

// selectLines leaves the jobs that have lines with matching names, with those
// lines and the contenders that they need.
func selectLines(all []*job, wanted *regexp.Regexp) []*job {
	var selected []*job
	for _, j := range all {
		j.lines = slices.DeleteFunc(j.lines, func(l line) bool { return !wanted.MatchString(l.name) })
		j.contenders = slices.DeleteFunc(j.contenders, func(c contender) bool {
			return !slices.ContainsFunc(j.lines, func(l line) bool { return l.ours == c.name || l.theirs == c.name })
		})
		if len(j.lines) > 0 {
			selected = append(selected, j)
		}
	}
	return selected
}

// measure does the jobs. With an error, it returns those done before.
func (c *runCommand) measure(ctx context.Context, l *lab, selected []*job, out *cli.IO) (*report, error) {
	if err := l.addTools(c.Bin, "nix-closure-import", "vm-prebuild"); err != nil {
		return nil, err
	}
	if c.Scale < 1 {
		l.pause = 0 // nothing is judged
	}
	r, err := newReport(ctx, l, c.Runs, c.Scale)
	if err != nil {
		return nil, err
	}
	for _, j := range selected {
		results, err := l.run(ctx, j, c.Runs, func(format string, args ...any) { fmt.Fprintf(out.Stderr, format, args...) })
		if err != nil {
			return r, err
		}
		for _, line := range j.lines {
			r.add(line, results)
		}
	}
	return r, nil
}
