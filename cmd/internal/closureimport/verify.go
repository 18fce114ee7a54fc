package closureimport

import (
	"context"
	"fmt"
	"time"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/storedb"
)

// Verify verifies a store, shows progress on out.Stderr and prints what it finds
// on out.Stdout: errors and warnings, and information if asked for. That there
// are errors is an error.
func Verify(ctx context.Context, o storedb.VerifyOptions, information, asJSON bool, out *cli.IO) error {
	progress := newProgress(out.Stderr)
	o.Progress = progress.show
	report, err := storedb.VerifyStore(ctx, o)
	progress.close()
	if err != nil {
		return err
	}
	if asJSON {
		err = out.JSON(report)
	} else {
		err = printReport(report, information, out)
	}
	if err == nil && report.Errors > 0 {
		err = cli.WithExitCode(cli.ExitFailed, fmt.Errorf("the store %s is damaged: %s", o.Store, count(report.Errors, "error")))
	}
	return err
}

func printReport(r storedb.Report, information bool, out *cli.IO) error {
	for _, f := range r.Findings {
		if f.Severity == storedb.SeverityInformation && !information {
			continue
		}
		line := fmt.Sprintf("%s (%s): ", f.Severity, f.Kind)
		if f.Path != "" {
			line += f.Path + ": "
		}
		if _, err := fmt.Fprintln(out.Stdout, line+f.Detail); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out.Stdout, "verified %s (%s) in %v: %s, %s\n", count(r.Paths, "path"), megabytes(r.NarBytes),
		r.Total.Round(time.Millisecond), count(r.Errors, "error"), count(r.Warnings, "warning"))
	return err
}

// count is a number of things.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
