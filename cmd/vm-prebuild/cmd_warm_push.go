package main

import (
	"context"
	"errors"
	"fmt"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun/warm"
)

type warmPushCommand struct {
	warmStore
	JSON bool     `name:"json" help:"Print JSON instead of text."`
	Dir  string   `arg:"" name:"dir" help:"Directory of packed states; it is made if missing. Whoever can read it can read the memory of the guests."`
	Keys []string `arg:"" optional:"" name:"state" help:"States to pack; all when none is named. Those of machines under KVM are refused: they are for this CPU only."`
}

// Examples implements cli's interface.
func (c *warmPushCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "All states, to where a CI system's cache or a share has them", Command: "vm-prebuild warm push /mnt/share/warm"},
		{Text: "Run tests elsewhere from there", Command: "run-vm-tests --warm auto --warm-from /mnt/share/warm"},
	}
}

// Run packs states and says what they take.
func (c *warmPushCommand) Run(ctx context.Context, out *cli.IO) error {
	store, err := c.open()
	if err != nil {
		return err
	}
	keys, err := keysOf(store, c.Keys)
	if err != nil {
		return err
	}
	done := []warm.Packed{}
	var bad []error
	for _, key := range keys {
		p, err := pack(ctx, out, store, key, c.Dir, false)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			bad = append(bad, err)
			continue
		}
		done = append(done, p)
	}
	if c.JSON {
		err = out.JSON(done)
	} else {
		for _, p := range done {
			fmt.Fprintln(out.Stdout, describePacked(p))
		}
	}
	return errors.Join(err, failures(bad, len(keys), "pushed"))
}

// failures is the error that says how many states were left out, and why.
func failures(bad []error, of int, what string) error {
	if len(bad) == 0 {
		return nil
	}
	return cli.WithExitCode(cli.ExitFailed, fmt.Errorf("%d of %d states were not %s\n%w", len(bad), of, what, errors.Join(bad...)))
}

// pack packs a state, and shows how far that has come.
func pack(ctx context.Context, out *cli.IO, store warm.Store, key, dir string, hostBound bool) (warm.Packed, error) {
	bar := &packProgress{out: out, key: key}
	defer bar.close()
	return store.Pack(ctx, key, dir, warm.PackOptions{HostBound: hostBound, Progress: bar.show})
}

func describePacked(p warm.Packed) string {
	if p.There {
		return fmt.Sprintf("%s is packed there already (%s)", p.Key, megabytes(p.PackedBytes))
	}
	return fmt.Sprintf("%s: packed %s into %s", p.Key, megabytes(p.Bytes), megabytes(p.PackedBytes))
}
