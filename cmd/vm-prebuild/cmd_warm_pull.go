package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun/warm"
)

type warmPullCommand struct {
	warmStore
	JSON bool     `name:"json" help:"Print JSON instead of text."`
	Dir  string   `arg:"" name:"dir" help:"Directory of packed states."`
	Keys []string `arg:"" optional:"" name:"state" help:"States to unpack; all when none is named. Those that were saved under KVM, on another CPU, are refused."`
}

// Examples implements cli's interface.
func (c *warmPullCommand) Examples() []cli.Example {
	return []cli.Example{{Text: "Have all states here before the tests begin", Command: "vm-prebuild warm pull /mnt/share/warm"}}
}

// pulledState is a state as JSON.
type pulledState struct {
	Key     string  `json:"key"`
	There   bool    `json:"there"` // it was not unpacked again
	Seconds float64 `json:"seconds"`
}

// Run unpacks states and says which.
func (c *warmPullCommand) Run(ctx context.Context, out *cli.IO) error {
	store, err := c.open()
	if err != nil {
		return err
	}
	keys := c.Keys
	if len(keys) == 0 {
		if keys, err = warm.ListPacked(c.Dir); err != nil {
			return err
		}
	}
	done := []pulledState{}
	var bad []error
	for _, key := range keys {
		begin := time.Now()
		there, err := store.Unpack(ctx, c.Dir, key)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			bad = append(bad, err)
			continue
		}
		p := pulledState{key, there, time.Since(begin).Seconds()}
		done = append(done, p)
		if c.JSON {
			continue
		}
		what := fmt.Sprintf("unpacked in %.1f seconds", p.Seconds)
		if there {
			what = "there already"
		}
		fmt.Fprintf(out.Stdout, "%s: %s\n", key, what)
	}
	if c.JSON {
		err = out.JSON(done)
	}
	return errors.Join(err, failures(bad, len(keys), "pulled"))
}
