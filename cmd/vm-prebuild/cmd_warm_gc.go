package main

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun/warm"
)

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
