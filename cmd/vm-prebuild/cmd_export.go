package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/nar/compress"
	"vm-prebuild/prebuild"
)

type exportCommand struct {
	To          string   `required:"" xor:"to" placeholder:"CACHE" help:"Binary cache to write to: a directory, or file:// and its path. It is made if missing."`
	Bundle      string   `required:"" xor:"to" placeholder:"FILE" help:"Bundle to write: all in one file, for CI caches. - is stdout."`
	From        string   `default:"/" placeholder:"ROOT" help:"Root of the store that has the files. Default: ${default}."`
	Compression string   `enum:"zstd,xz,none" default:"zstd" help:"How archives are compressed: ${enum}. Default: ${default}. For xz, there must be the program xz."`
	Level       int      `placeholder:"N" help:"Level of the compression. Default: 3 for zstd, of 19, and 6 for xz, of 9."`
	SecretKey   []string `sep:"none" placeholder:"FILE" help:"Sign with the key in FILE, as nix-store --generate-binary-cache-key writes it; what the cache has already stays as it is. Can be repeated."`
	Listing     bool     `help:"Write a listing of each archive, too, as Nix's setting write-nar-listing does."`
	Paths       string   `placeholder:"FILE" help:"File that lists store paths to export, one a line; - is stdin."`
	Jobs        int      `short:"j" placeholder:"N" help:"Store paths to read at once. Default: one for each CPU."`
	DryRun      bool     `short:"n" help:"Only say what would be done."`
	JSON        bool     `name:"json" help:"Print JSON instead of text."`
	What        []string `arg:"" optional:"" name:"result|path" help:"A closureInfo directory, a build result or a manifest; or store paths, whose closure is meant."`
}

// Run exports and says what that took.
func (c *exportCommand) Run(ctx context.Context, out *cli.IO) error {
	jobs, err := cli.Workers(c.Jobs)
	if err != nil {
		return err
	}
	method := compress.Method(c.Compression)
	if c.Bundle != "" && (method != compress.Zstd || c.Listing) {
		return cli.Usagef("--bundle: a bundle is compressed with zstd, and has no listings")
	}
	if least, highest, _ := method.Levels(); c.Level != 0 && (c.Level < least || c.Level > highest) {
		return cli.Usagef("--level: %s has levels %d to %d", method, least, highest)
	}
	var keys []signature.SecretKey
	for _, file := range c.SecretKey {
		key, err := prebuild.ReadSecretKey(file)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	selection, err := prebuild.Select(c.What, c.Paths, c.From, os.Stdin)
	if err != nil {
		return err
	}
	closure, err := selection.Closure(ctx, c.From)
	if err != nil {
		return err
	}
	progress := newExportProgress(out)
	summary, err := prebuild.Export(ctx, prebuild.ExportOptions{
		Closure: closure, From: c.From, To: c.To, Bundle: c.Bundle, Stdout: out.Stdout,
		Compression: method, Level: c.Level, Listings: c.Listing, Keys: keys,
		Jobs: jobs, DryRun: c.DryRun, Progress: progress.show,
	})
	progress.close()
	if err != nil {
		return err
	}
	if c.Bundle == "-" && !c.DryRun {
		out = &cli.IO{Stdout: out.Stderr} // stdout has the bundle
	}
	if c.JSON {
		return out.JSON(summary)
	}
	_, err = fmt.Fprintln(out.Stdout, describeExport(summary))
	return err
}

// describeExport is a summary in a sentence.
func describeExport(s prebuild.ExportSummary) string {
	switch {
	case s.Written == 0:
		return fmt.Sprintf("nothing to do: all %d paths are there already", s.Paths)
	case s.DryRun:
		return fmt.Sprintf("would export %d of %d paths (%s)", s.Written, s.Paths, megabytes(s.NarBytes))
	}
	return fmt.Sprintf("exported %d of %d paths (%s, compressed to %s) in %v",
		s.Written, s.Paths, megabytes(s.NarBytes), megabytes(s.FileBytes), s.Total.Round(time.Millisecond))
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// Examples are shown by --help.
func (*exportCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "Into a binary cache, signed, only what it lacks", Command: "vm-prebuild export --to /srv/cache --secret-key key result"},
		{Text: "Into one file for a CI cache", Command: "vm-prebuild export --bundle closure.bundle result"},
		{Text: "The closure of store paths, over a pipe into the store of another machine", Command: "vm-prebuild export --bundle - /nix/store/… | ssh host vm-prebuild import --store /mnt --bundle -"},
	}
}
