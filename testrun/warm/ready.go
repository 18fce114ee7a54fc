package warm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"vm-prebuild/testrun/machine"
)

// Ready is the point at which a machine is saved.
type Ready struct{ kind, argument string }

// readyLimit is how long a machine whose shell answers may take to its ready
// point.
const readyLimit = 5 * time.Minute

// ParseReady reads a ready point: "shell", "unit:NAME", "file:PATH" or
// "command:COMMAND".
func ParseReady(text string) (Ready, error) {
	kind, argument, _ := strings.Cut(text, ":")
	switch {
	case text == "shell":
		return Ready{}, nil
	case (kind == "unit" || kind == "file" || kind == "command") && argument != "":
		return Ready{kind, argument}, nil
	}
	return Ready{}, fmt.Errorf("%q is no ready point\nhint: there are shell, unit:NAME, file:PATH and command:COMMAND", text)
}

func (r Ready) String() string {
	if r.kind == "" {
		return "shell"
	}
	return r.kind + ":" + r.argument
}

// await waits until the guest is ready.
func (r Ready) await(ctx context.Context, g *machine.Guest) (err error) {
	switch r.kind {
	case "unit":
		err = g.WaitForUnit(ctx, r.argument, "", readyLimit)
	case "file":
		err = g.WaitForFile(ctx, r.argument, readyLimit)
	case "command":
		_, err = g.WaitUntilSucceeds(ctx, r.argument, readyLimit)
	default:
		_, err = g.Shell(ctx)
	}
	return err
}
