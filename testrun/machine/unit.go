package machine

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// systemctl returns the command line for a systemctl query of the system's
// manager or, with a user, of that user's.
func systemctl(query, user string) string {
	if user == "" {
		return "systemctl " + query
	}
	return fmt.Sprintf("su -l %s --shell /bin/sh -c %s", user,
		Quote("XDG_RUNTIME_DIR=/run/user/`id -u` systemctl --user "+query))
}

func under(user string) string {
	if user == "" {
		return ""
	}
	return fmt.Sprintf(" under user %q", user)
}

// Systemctl runs systemctl with the given arguments, a shell fragment, and
// returns its exit status and output; the status is 124 after DefaultTimeout.
// user may be empty.
func (g *Guest) Systemctl(ctx context.Context, query, user string) (int, string, error) {
	r, err := g.run(ctx, systemctl(query, user), DefaultTimeout)
	return r.Status, Text(r.Stdout), err
}

// unitLoop prints the state in which a unit has come to rest: "active",
// "failed", "inactive" when no job is pending that could change that, or
// "error STATUS" of systemctl.
const unitLoop = `s=$(show) || { echo "error $?"; exit 0; }
s=${s#ActiveState=}
case $s in
active|failed) echo "$s"; exit 0 ;;
inactive)
  case $(jobs 2>&1 || :) in
  *"No jobs"*)
    s=$(show) || { echo "error $?"; exit 0; }
    case $s in ActiveState=inactive) echo inactive; exit 0 ;; esac ;;
  esac ;;
esac`

// WaitForUnit waits until a unit is active. It fails at once when the unit has
// failed, or is inactive with no job pending.
func (g *Guest) WaitForUnit(ctx context.Context, unit, user string, timeout time.Duration) error {
	title := "waiting for unit " + unit
	if user != "" {
		title += " with user " + user
	}
	return g.nested(title, func() error {
		setup := fmt.Sprintf("show() { %s; }\njobs() { %s; }",
			systemctl(fmt.Sprintf(`--no-pager show %q --property=ActiveState`, unit), user),
			systemctl("list-jobs --full", user))
		state, err := g.poll(ctx, timeout, setup+"\n"+unitLoop)
		if err != nil {
			return err
		}
		state = strings.TrimSpace(state)
		switch state {
		case "active":
			return nil
		case "failed":
			return assertionf("unit %q reached state %q", unit, state)
		case "inactive":
			return assertionf("unit %q is inactive and there are no pending jobs", unit)
		}
		return assertionf("retrieving systemctl info for property \"ActiveState\" for unit %q%s failed with exit code %s",
			unit, under(user), strings.TrimPrefix(state, "error "))
	})
}

// UnitInfo returns the properties of a unit.
func (g *Guest) UnitInfo(ctx context.Context, unit, user string) (map[string]string, error) {
	status, output, err := g.Systemctl(ctx, fmt.Sprintf("--no-pager show %q", unit), user)
	if err != nil {
		return nil, err
	}
	if status != 0 {
		return nil, assertionf("retrieving systemctl info for unit %q%s failed with exit code %d", unit, under(user), status)
	}
	info := map[string]string{}
	for line := range strings.Lines(output) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && key != "" {
			info[key] = value
		}
	}
	return info, nil
}

// UnitProperty returns one property of a unit.
func (g *Guest) UnitProperty(ctx context.Context, unit, property, user string) (string, error) {
	status, output, err := g.Systemctl(ctx, fmt.Sprintf("--no-pager show %q --property=%q", unit, property), user)
	if err != nil {
		return "", err
	}
	if status != 0 {
		return "", assertionf("retrieving systemctl property %q for unit %q%s failed with exit code %d", property, unit, under(user), status)
	}
	line, _, _ := strings.Cut(output, "\n")
	value, ok := strings.CutPrefix(line, property+"=")
	if !ok {
		return "", Errorf(g.Machine.Name(), "systemctl show of unit %q gave %q instead of property %q", unit, line, property)
	}
	return value, nil
}

// RequireUnitState fails unless the unit is in the given state now.
func (g *Guest) RequireUnitState(ctx context.Context, unit, state string) error {
	return g.nested(fmt.Sprintf("checking if unit '%s' has reached state '%s'", unit, state), func() error {
		info, err := g.UnitInfo(ctx, unit, "")
		if err != nil {
			return err
		}
		if is := info["ActiveState"]; is != state {
			// "to to be" is what nixpkgs' driver says, and what people grep for.
			return assertionf("Expected unit '%s' to to be in state '%s' but it is in state '%s'", unit, state, is)
		}
		return nil
	})
}
