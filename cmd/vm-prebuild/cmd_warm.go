package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"text/tabwriter"
	"time"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun/warm"
)

// warmCommand looks after the states of machines that drivers have saved with
// --warm-save.
type warmCommand struct {
	List   warmListCommand   `cmd:"" help:"List the states of machines that were saved."`
	Verify warmVerifyCommand `cmd:"" help:"Read states and compare them with what was saved."`
	GC     warmGCCommand     `cmd:"" name:"gc" help:"Remove states: damaged and old ones, and those not used for longest."`
}

type warmStore struct {
	WarmDir string `env:"NIXOS_TEST_WARM_DIR" placeholder:"DIR" help:"Directory of the states. Default: $XDG_CACHE_HOME/vm-prebuild/warm."`
}

func (w warmStore) open() (warm.Store, error) {
	if w.WarmDir != "" {
		return warm.Store{Dir: w.WarmDir}, nil
	}
	dir, err := warm.DefaultDir()
	return warm.Store{Dir: dir}, err
}

type warmListCommand struct {
	warmStore
	JSON bool `name:"json" help:"Print JSON instead of a table."`
}

// Run lists the states.
func (c *warmListCommand) Run(out *cli.IO) error {
	store, err := c.open()
	if err != nil {
		return err
	}
	all, err := store.List()
	if err != nil {
		return err
	}
	return writeStates(out, all, c.JSON)
}

func writeStates(out *cli.IO, all []warm.Entry, asJSON bool) error {
	if asJSON {
		return out.JSON(append([]warm.Entry{}, all...))
	}
	return writeStateTable(out.Stdout, all)
}

func writeStateTable(w io.Writer, all []warm.Entry) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, e := range all {
		fmt.Fprintf(table, "%s\t%s\t%s\tused %s\t%s\n", e.Key, e.Ready, megabytes(e.Bytes), e.Used.Local().Format(time.DateTime), e.Problem)
	}
	return table.Flush()
}

type warmVerifyCommand struct {
	warmStore
	Keys []string `arg:"" optional:"" name:"state" help:"States to read; all when none is named."`
}

// Run verifies the states.
func (c *warmVerifyCommand) Run(ctx context.Context, out *cli.IO) error {
	store, err := c.open()
	if err != nil {
		return err
	}
	keys := c.Keys
	if len(keys) == 0 {
		all, err := store.List()
		if err != nil {
			return err
		}
		for _, e := range all {
			keys = append(keys, e.Key)
		}
	}
	var bad []error
	for _, key := range keys {
		err := store.Verify(ctx, key)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			bad = append(bad, err)
			continue
		}
		fmt.Fprintf(out.Stdout, "%s is what was saved\n", key)
	}
	if len(bad) > 0 {
		return cli.WithExitCode(cli.ExitFailed, fmt.Errorf("%d of %d states are not what was saved\n%w", len(bad), len(keys), errors.Join(bad...)))
	}
	return nil
}

type warmGCCommand struct {
	warmStore
	MaxSize   string `placeholder:"SIZE" help:"Keep no more than this on the disk: a number of bytes, or as 500M, 20G."`
	OlderThan int    `placeholder:"DAYS" help:"Remove what was not used for so many days."`
	JSON      bool   `name:"json" help:"Print what was removed as JSON."`
}

// Examples implements cli's interface.
func (c *warmGCCommand) Examples() []cli.Example {
	return []cli.Example{{Text: "keep what was used within a week, and 20 GB of that", Command: "vm-prebuild warm gc --older-than 7 --max-size 20G"}}
}

// Run removes states and says which.
func (c *warmGCCommand) Run(out *cli.IO) error {
	limits := warm.Limits{Bytes: -1, Age: time.Duration(c.OlderThan) * 24 * time.Hour}
	if c.OlderThan < 0 {
		return cli.Usagef("--older-than must not be negative")
	}
	if c.MaxSize != "" {
		var err error
		if limits.Bytes, err = parseSize(c.MaxSize); err != nil {
			return cli.Usagef("--max-size: %w", err)
		}
	}
	store, err := c.open()
	if err != nil {
		return err
	}
	removed, err := store.Collect(limits)
	if err != nil {
		return err
	}
	return writeStates(out, removed, c.JSON)
}

var sizePattern = regexp.MustCompile(`^([0-9]{1,12})([kMGT]?)$`)

// parseSize reads a number of bytes with a decimal prefix.
func parseSize(text string) (int64, error) {
	m := sizePattern.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("%q is not a size\nhint: write bytes, or a number with k, M, G or T", text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0, err
	}
	for _, unit := range []string{"k", "M", "G", "T"} {
		if m[2] == "" {
			break
		}
		if n *= 1000; n > 1<<50 {
			return 0, fmt.Errorf("%q is more than any disk has", text)
		}
		if unit == m[2] {
			break
		}
	}
	return n, nil
}
