package main

import (
	"context"
	"errors"
	"fmt"

	"vm-prebuild/cmd/internal/cli"
)

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
	keys, err := keysOf(store, c.Keys)
	if err != nil {
		return err
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
