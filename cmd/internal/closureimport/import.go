// Package closureimport is how our commands show an import of a closure:
// progress while it runs, and a summary. [Run] is its one entry point.
package closureimport

import (
	"context"
	"fmt"
	"slices"
	"time"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/storedb"
)

// Run imports as o says, shows progress on out.Stderr and prints the summary
// on out.Stdout.
func Run(ctx context.Context, o storedb.Options, asJSON bool, out *cli.IO) error {
	progress := newProgress(out.Stderr)
	o.Progress = progress.show
	summary, err := storedb.Import(ctx, o)
	progress.close()
	if err != nil {
		return err
	}
	if asJSON {
		return out.JSON(summary)
	}
	_, err = fmt.Fprintln(out.Stdout, describe(summary, o))
	return err
}

// describe is a summary in a sentence.
func describe(s storedb.Summary, o storedb.Options) string {
	verb, took := "import", s.Total.Round(time.Millisecond)
	if o.RegisterOnly {
		verb = "register"
	}
	what := fmt.Sprintf("%d of %d paths (%s", s.Placed, s.Paths, megabytes(s.NarBytes))
	switch {
	case s.Placed == 0 && o.Reregister && !s.DryRun:
		return fmt.Sprintf("registered all %d paths again (%v)", s.Paths, took)
	case s.Placed == 0:
		return fmt.Sprintf("nothing to do: all %d paths are valid already (%v)", s.Paths, took)
	case s.DryRun:
		return fmt.Sprintf("would %s %s)", verb, what)
	case o.RegisterOnly:
		return fmt.Sprintf("registered %s) in %v", what, took)
	}
	if s.Resumed > 0 {
		what += fmt.Sprintf(", %d paths from an interrupted import", s.Resumed)
	}
	if slices.Contains([]storedb.Method{storedb.MethodOverlay, storedb.MethodBind, storedb.MethodSnapshot}, s.Method) {
		return fmt.Sprintf("imported %s, by %s) in %v", what, s.Method, took)
	}
	if o.Files != nil {
		return fmt.Sprintf("imported %s, unpacked) in %v", what, took)
	}
	return fmt.Sprintf("imported %s, %d files reflinked, %d copied, %d hard-linked) in %v",
		what, s.Reflinked, s.Copied, s.HardLinked, took)
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
