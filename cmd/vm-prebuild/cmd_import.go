package main

import (
	"context"
	"errors"
	"os"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/cmd/internal/closureimport"
	"vm-prebuild/prebuild"
	"vm-prebuild/storedb"
)

type importCommand struct {
	Store             string   `required:"" placeholder:"ROOT" help:"Root of the store to import into, as for nix --store; made if missing."`
	From              string   `xor:"source" placeholder:"SOURCE" help:"What has the files: the root of a local store, a binary cache (directory, file://, http:// or https://), or a closureInfo directory. Default: /."`
	Bundle            string   `xor:"source" placeholder:"FILE" help:"Bundle that has the files; - is stdin, from which paths are imported while they come."`
	TrustedPublicKeys []string `sep:"none" placeholder:"KEYS" help:"Keys, with blanks between them, of which one must have signed each path, content addressed ones too. Can be repeated. Needed for caches behind a URL, unless a closureInfo says what is right."`
	NoCheckSigs       bool     `help:"Believe a cache behind a URL without signatures, as one given as a directory is."`
	Netrc             string   `placeholder:"FILE" help:"File with the credentials for web servers. Default: ~/.netrc, if there is one."`
	Paths             string   `placeholder:"FILE" help:"File that lists store paths to import, one a line; - is stdin."`
	GCRoot            string   `name:"gc-root" placeholder:"NAME" help:"Keep the closure from the garbage collector by links in a directory NAME below gcroots."`
	Jobs              int      `short:"j" placeholder:"N" help:"Store paths to take at once. Default: one for each CPU, 8 from web servers."`
	DryRun            bool     `short:"n" help:"Only say what would be done."`
	JSON              bool     `name:"json" help:"Print JSON instead of text."`
	What              []string `arg:"" optional:"" name:"result|path" help:"A closureInfo directory, a build result or a manifest; or store paths, whose closure is meant (a cache knows them by their hash parts, too). Default: all that is in the bundle or directory."`
}

// Run imports the closure and says what that took.
func (c *importCommand) Run(ctx context.Context, out *cli.IO) (err error) {
	keys, err := prebuild.ParsePublicKeys(c.TrustedPublicKeys)
	if err != nil {
		return err
	}
	if c.NoCheckSigs && len(keys) > 0 {
		return cli.Usagef("--no-check-sigs and --trusted-public-keys contradict each other")
	}
	source, err := prebuild.OpenImport(ctx, prebuild.ImportOptions{
		From: c.From, Bundle: c.Bundle, What: c.What, PathsFile: c.Paths, Stdin: os.Stdin,
		TrustedKeys: keys, NoCheckSigs: c.NoCheckSigs, Netrc: c.Netrc,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	if c.Jobs == 0 {
		c.Jobs = source.Jobs
	}
	jobs, err := cli.Workers(c.Jobs)
	if err != nil {
		return err
	}
	err = closureimport.Run(ctx, storedb.Options{
		Closure: source.Closure, From: source.From, Files: source.Files, DBImage: source.Image,
		Store: c.Store, Jobs: jobs, DryRun: c.DryRun, GCRoot: c.GCRoot,
	}, c.JSON, out)
	if err != nil {
		return err
	}
	return source.Finish(ctx)
}

// Examples are shown by --help.
func (*importCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "From this machine's store", Command: "vm-prebuild import --store /mnt result"},
		{Text: "From a web server", Command: "vm-prebuild import --store /mnt --from https://cache.example.org --trusted-public-keys 'example-1:…' /nix/store/…"},
		{Text: "All of a bundle, while it arrives", Command: "curl -sf https://ci.example.org/closure.bundle | vm-prebuild import --store /mnt --bundle -"},
	}
}
