package machine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/machine"
)

// program puts a program in front of the fake guest's PATH.
func (f *fake) program(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.path, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestTerminals(t *testing.T) {
	g, f, log := newGuest(t)
	ctx := t.Context()
	screen := filepath.Join(f.path, "screen")
	show := func(text string) {
		t.Helper()
		if err := os.WriteFile(screen+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(screen+".new", screen); err != nil {
			t.Fatal(err)
		}
	}
	f.program(t, "stty", `[ "$*" = "-F /dev/tty2 size" ] && echo 25 80`)
	f.program(t, "fold", `case "$*" in "-w80 /dev/vcs2"|"-w 80 /dev/vcs2") cat `+screen+`;; *) exit 9;; esac`)
	f.program(t, "systemd-cat", "cat >"+filepath.Join(f.path, "journal"))

	show("login: \xdb x=1=")
	text, err := g.TTYText(ctx, "2")
	if err != nil || text != "login: \uFFFD x=1=" {
		t.Errorf("%q %v", text, err)
	}
	if err := g.DumpTTYContents(ctx, "2"); err != nil {
		t.Error(err)
	}
	if journal, err := os.ReadFile(filepath.Join(f.path, "journal")); err != nil || string(journal) != "login: \xdb x=1=" {
		t.Errorf("%q %v", journal, err)
	}
	if err := g.WaitUntilTTYMatches(ctx, "2", "x=1=$", time.Minute); err != nil {
		t.Error(err)
	}
	time.AfterFunc(300*time.Millisecond, func() { show("welcome\n") })
	begin := time.Now()
	if err := g.WaitUntilTTYMatches(ctx, "2", "(?<!un)welcome\n$", time.Minute); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("noticed after %v", took)
	}
	for _, d := range []time.Duration{0, 300 * time.Millisecond} {
		err = g.WaitUntilTTYMatches(ctx, "2", "never", d)
		wantAssertion(t, err, "action timed out after ")
		wantAssertion(t, err, "(timeout="+machine.PythonSeconds(d)+")")
	}
	lines := strings.Join(log.lines, "\n")
	for _, part := range []string{
		"waiting for never to appear on tty 2",
		"Last chance to match /never/ on TTY2, which currently contains: welcome\n",
	} {
		if !strings.Contains(lines, part) {
			t.Errorf("%q is not in the log:\n%s", part, lines)
		}
	}
	f.stuck = errStuck
	if err := g.WaitUntilTTYMatches(ctx, "2", "never", time.Minute); !errors.Is(err, errStuck) {
		t.Error(err)
	}
}

// windows is what xwininfo prints for a desktop; the names follow Debian's
// xwininfo 1.1.5 in Xvfb.
const windows = `
xwininfo: Window id: 0x50a (the root window) (has no name)

  Root window id: 0x50a (the root window) (has no name)
  Parent window id: 0x0 (none)
     2 children:
     0x400022 "Terminal - root@machine": ("xfce4-terminal" "Xfce4-terminal")  646x416+10+40  +10+40
        1 child:
        0x400023 (has no name): ()  1x1+-1+-1  +9+39
     0x200001 "icewm": ()  10x10+-100+-100  +-100+-100
`

func TestWindows(t *testing.T) {
	g, f, log := newGuest(t)
	ctx := t.Context()
	file := filepath.Join(f.path, "windows")
	if err := os.WriteFile(file, []byte(windows), 0o600); err != nil {
		t.Fatal(err)
	}
	f.program(t, "xwininfo", `[ "$*" = "-root -tree" ] || exit 9; cat `+file)
	names, err := g.WindowNames(ctx)
	if err != nil || strings.Join(names, "|") != "Terminal - root@machine|icewm" {
		t.Errorf("%q %v", names, err)
	}
	if err := g.WaitForWindow(ctx, "^Term.*root@", time.Minute); err != nil {
		t.Error(err)
	}
	wantAssertion(t, g.WaitForWindow(ctx, "Firefox", 200*time.Millisecond), "(timeout=0.2)")
	const said = "Last chance to match Firefox on the window list, which currently contains: Terminal - root@machine, icewm"
	if lines := strings.Join(log.lines, "\n"); !strings.Contains(lines, said) || !strings.Contains(lines, "waiting for a window to appear") {
		t.Errorf("log:\n%s", lines)
	}
	f.program(t, "xwininfo", "exit 1")
	wantAssertion(t, g.WaitForWindow(ctx, "Firefox", time.Minute), "command `xwininfo -root -tree` failed (exit code 1)")
}

func TestWaitForX(t *testing.T) {
	g, f, _ := newGuest(t)
	f.program(t, "journalctl", `[ "$*" = "-b SYSLOG_IDENTIFIER=systemd" ] && echo "systemd[900]: Reached target Current graphical user session."`)
	// "test -e" is bash's own; the socket is this host's, where there is one.
	_, there := os.Stat("/tmp/.X11-unix/X0")
	err := g.WaitForX(t.Context(), 200*time.Millisecond)
	if there == nil && err != nil {
		t.Error(err)
	} else if there != nil {
		wantAssertion(t, err, "action timed out")
	}
	f.program(t, "journalctl", "true")
	wantAssertion(t, g.WaitForX(t.Context(), 200*time.Millisecond), "action timed out")
}

func TestWaitForOpenUnixSocket(t *testing.T) {
	g, f, log := newGuest(t)
	f.program(t, "nc", `echo "$*" >>`+filepath.Join(f.path, "calls")+`; [ -e `+filepath.Join(f.path, "open")+` ]`)
	wantAssertion(t, g.WaitForOpenUnixSocket(t.Context(), "/run/x", false, 100*time.Millisecond), "action timed out")
	time.AfterFunc(100*time.Millisecond, func() { f.program(t, "open", "") })
	if err := g.WaitForOpenUnixSocket(t.Context(), "/run/y", true, time.Minute); err != nil {
		t.Error(err)
	}
	calls, err := os.ReadFile(filepath.Join(f.path, "calls"))
	if err != nil || !strings.Contains(string(calls), "-z -U /run/x\n") || !strings.Contains(string(calls), "-z -uU /run/y\n") {
		t.Errorf("%s %v", calls, err)
	}
	const said = "waiting for UNIX-domain stream on '/run/x'\nwaiting for UNIX-domain datagram on '/run/y'"
	if got := strings.Join(log.lines, "\n"); got != said {
		t.Errorf("said %s", got)
	}
}
