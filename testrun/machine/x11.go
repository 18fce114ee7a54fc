package machine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"vm-prebuild/testrun/pyregexp"
)

// WaitForX waits until the guest's X server takes connections: a graphical
// session has begun, and the server's socket is there.
func (g *Guest) WaitForX(ctx context.Context, timeout time.Duration) error {
	return g.waitTest(ctx, "waiting for the X11 server",
		`journalctl -b SYSLOG_IDENTIFIER=systemd | grep "Reached target Current graphical" && [ -e /tmp/.X11-unix/X0 ]`, timeout)
}

// windowList prints the window tree, in which a window with a name is
// 0x2a00007 "its name": …
const windowList = "xwininfo -root -tree"

// windowNames picks the names from a window tree.
func windowNames(tree string) []string {
	names := []string{}
	for line := range strings.Lines(tree) {
		_, after, ok := strings.Cut(line, "0x")
		if !ok {
			continue
		}
		quoted, ok := strings.CutPrefix(strings.TrimLeft(after, "0123456789abcdef"), ` "`)
		if !ok {
			continue
		}
		// xwininfo does not escape anything; the class follows in quotes, too.
		if name, _, ok := strings.Cut(quoted, `"`); ok {
			names = append(names, name)
		}
	}
	return names
}

// WindowNames returns the names of all X windows.
func (g *Guest) WindowNames(ctx context.Context) ([]string, error) {
	tree, err := g.Succeed(ctx, []string{windowList}, 0)
	if err != nil {
		return nil, err
	}
	return windowNames(tree), nil
}

// WaitForWindow waits until a regular expression of Python matches the name of
// a window.
func (g *Guest) WaitForWindow(ctx context.Context, regex string, timeout time.Duration) error {
	return g.nested("waiting for a window to appear", func() error {
		return g.waitForChange(ctx, change{
			command: windowList,
			regex:   regex,
			timeout: timeout,
			match: func(re *pyregexp.Regexp, tree string) (bool, error) {
				for _, name := range windowNames(tree) {
					if ok, err := re.Search(name); ok || err != nil {
						return ok, err
					}
				}
				return false, nil
			},
			last: func(tree string) string {
				return fmt.Sprintf("Last chance to match %s on the window list, which currently contains: %s",
					regex, strings.Join(windowNames(tree), ", "))
			},
			failed: func(status int) error {
				return assertionf("command `%s` failed (exit code %d)", windowList, status)
			},
		})
	})
}
