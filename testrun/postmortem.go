package testrun

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/report"
)

const (
	// postMortemLimit is what a failed test may take longer for what it leaves.
	postMortemLimit = 10 * time.Second
	// postMortemStep is how long a guest or its QEMU may take to answer.
	postMortemStep = 3 * time.Second
	// greetingLimit is how long a guest may take whose shell nobody has used:
	// it may be there, or the guest may still boot.
	greetingLimit = time.Second
	// postMortemGrace is for what does not heed the end of its context at once.
	postMortemGrace = time.Second

	maxConsoleFile = 16 << 20 // bytes; the end of the console is kept
	maxJournalFile = 4 << 20
	journalLines   = 500
)

// errNothingToSay ends the collection of what there cannot be.
var errNothingToSay = errors.New("the machine does not run")

// postMortem collects what helps to find out why a test failed, while its
// machines are as the failure left them: for each machine its console, the end
// of its journal, a screenshot and the command line of its QEMU; and the page,
// which is written when the reports are closed. It never makes a failure worse:
// what cannot be had is named in the log and left out, and it ends in time.
func (d *driver) postMortem(ctx context.Context, page *report.Page) {
	machines := slices.DeleteFunc(d.all(), func(m machine.Machine) bool {
		return page.CommandLine(m.Name()) == nil && len(m.Console()) == 0 // never started
	})
	if len(machines) == 0 {
		return
	}
	slices.SortFunc(machines, func(a, b machine.Machine) int { return cmp.Compare(a.Name(), b.Name()) })
	dir, err := makeFailureDir(d.cfg.OutDir)
	if err != nil {
		d.bus.Log(event.Warning, "", fmt.Sprintf("the machines' states are not collected: %v", err))
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, postMortemLimit, fmt.Errorf("no answer within %v", postMortemLimit))
	defer cancel()
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		var wg sync.WaitGroup
		for _, m := range machines {
			wg.Go(func() { d.examine(ctx, m, filepath.Join(dir, m.Name()), page.CommandLine(m.Name())) })
		}
		wg.Wait()
	}()
	select {
	case <-collected:
	case <-time.After(postMortemLimit + postMortemGrace):
		d.bus.Log(event.Warning, "", "not all of the machines' states could be collected in time")
	}
	file := filepath.Join(dir, "report.html")
	if err := page.WriteAtClose(file); err != nil {
		d.bus.Log(event.Warning, "", err.Error())
	} else {
		d.bus.Emit(event.Artifact{Kind: "report", Path: file})
	}
	d.bus.Say("", "machine states and report of the failure: "+dir)
}

// makeFailureDir makes a directory in out that was not there before: scripts
// may have put anything into it, and earlier runs theirs.
func makeFailureDir(out string) (string, error) {
	const most = 1000
	for i := 1; ; i++ {
		dir := filepath.Join(out, "nixos-test-run-failure")
		if i > 1 {
			dir = fmt.Sprintf("%s-%d", dir, i)
		}
		err := os.Mkdir(dir, 0o755)
		if err == nil || !errors.Is(err, os.ErrExist) || i == most {
			return dir, err
		}
	}
}

// examine puts what a machine leaves into dir.
func (d *driver) examine(ctx context.Context, m machine.Machine, dir string, commandLine []string) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		d.bus.Log(event.Warning, m.Name(), fmt.Sprintf("its state is not collected: %v", err))
		return
	}
	var wg sync.WaitGroup
	for _, part := range []struct {
		kind, file string
		collect    func(ctx context.Context, file string) error
	}{
		{"console", "console.log", func(_ context.Context, file string) error {
			return writeConsole(file, m.Console())
		}},
		{"command line", "qemu-command", func(_ context.Context, file string) error {
			if commandLine == nil {
				return errors.New("it is not known")
			}
			return os.WriteFile(file, []byte(report.ShellCommand(commandLine)+"\n"), 0o644)
		}},
		{"journal", "journal.log", func(ctx context.Context, file string) error {
			return writeJournal(ctx, file, m)
		}},
		{"screenshot", "screenshot.png", func(ctx context.Context, file string) error {
			s, ok := m.(machine.Screenshotter)
			if !ok || !m.Running() {
				return errNothingToSay
			}
			return s.Screenshot(ctx, file)
		}},
	} {
		wg.Go(func() {
			ctx, cancel := context.WithTimeoutCause(ctx, postMortemStep, fmt.Errorf("no answer within %v", postMortemStep))
			defer cancel()
			file := filepath.Join(dir, part.file)
			switch err := part.collect(ctx, file); {
			case err == nil:
				d.bus.Emit(event.Artifact{Machine: m.Name(), Kind: part.kind, Path: file})
			case !errors.Is(err, errNothingToSay):
				d.bus.Log(event.Info, m.Name(), fmt.Sprintf("no %s: %s", part.kind, brief(err)))
			}
		})
	}
	wg.Wait()
}

// brief is an error without the console that it may carry, which is collected
// anyway.
func brief(err error) string {
	var of *machine.Error
	if errors.As(err, &of) {
		return of.Err.Error()
	}
	return err.Error()
}

// writeConsole writes the end of a console.
func writeConsole(file string, lines []string) error {
	first, size := len(lines), 0
	for first > 0 && size+len(lines[first-1]) < maxConsoleFile {
		first--
		size += len(lines[first]) + 1
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	if first > 0 {
		fmt.Fprintf(out, "(%d earlier lines are left out)\n", first)
	}
	for _, l := range lines[first:] {
		out.WriteString(l)
		out.WriteByte('\n')
	}
	return errors.Join(out.Flush(), f.Close())
}

// writeJournal asks the guest for the end of its journal, unless it would have
// to be booted for that.
func writeJournal(ctx context.Context, file string, m machine.Machine) error {
	if !m.Running() {
		return errNothingToSay
	}
	greeting, cancel := ctx, context.CancelFunc(func() {})
	if c, ok := m.(machine.Connector); ok && !c.Connected() {
		greeting, cancel = context.WithTimeoutCause(ctx, greetingLimit, errors.New("its shell has not been there yet"))
	}
	defer cancel()
	sh, err := m.Shell(greeting)
	if err != nil {
		return err
	}
	command := fmt.Sprintf("command -v journalctl >/dev/null || exit 127; journalctl --no-pager --lines=%d | tail -c %d", journalLines, maxJournalFile)
	r, err := sh.Run(ctx, command, postMortemStep)
	switch {
	case err != nil:
		return err
	case r.Status == 127:
		return errors.New("the guest has no journalctl")
	case r.Status != 0:
		return fmt.Errorf("journalctl: exit code %d", r.Status)
	}
	return os.WriteFile(file, r.Stdout[max(0, len(r.Stdout)-maxJournalFile):], 0o644)
}
