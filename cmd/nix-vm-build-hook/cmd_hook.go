package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/nix-community/go-nix/pkg/narinfo/signature"

	"vm-prebuild/buildhook"
	"vm-prebuild/cmd/internal/cli"
)

type hookCommand struct {
	shared
	TCG         string   `name:"tcg" env:"VM_PREBUILD_HOOK_TCG" enum:"allow,deny" default:"deny" help:"Where KVM cannot be used: let QEMU emulate the processor (allow), or leave tests that need KVM to others (deny). Default: ${default}."`
	Match       string   `placeholder:"REGEX" help:"Build derivations whose name matches, too."`
	Feature     []string `placeholder:"NAME" help:"Offer a feature, and build derivations that need it, too; can be given several times."`
	SandboxPath []string `placeholder:"DIR" help:"Directory or file that tests see in their sandbox, and cannot write to; can be given several times."`
	Cache       []string `placeholder:"CACHE" help:"Binary cache, by its directory or URL, from which results are placed instead of built; can be given several times."`
	Keys        []string `name:"trusted-public-keys" sep:" " placeholder:"KEY" help:"Public keys, as NAME:BASE64, of which one must have signed what comes from a cache behind a URL."`
	SecretKey   []string `placeholder:"FILE" help:"Secret key that signs what is built, besides those of Nix's setting secret-key-files; can be given several times."`
	Nix         string   `placeholder:"DIR" help:"Directory with the programs of the Nix that builds. Default: that of the Nix that has started the hook."`
	Verbosity   int      `arg:"" help:"Given by Nix."`
}

// Help says how Nix gets to know the hook.
func (hookCommand) Help() string {
	return `Nix starts it with its setting build-hook, which only users that the daemon trusts can set for one build. It takes derivations that need the features nixos-test, kvm, uid-range or devnet, and those that --match and --feature name. All others go to Nix's own hook if there are remote builders, and else to Nix, as if this one did not exist. Results are served only if they are in a cache named with --cache.`
}

// Examples are shown in the help.
func (hookCommand) Examples() []cli.Example {
	return []cli.Example{
		{Text: "One build with it", Command: `nix build .#checks.x86_64-linux.my-test --option build-hook '/usr/bin/nix-vm-build-hook --tcg=allow'`},
		{Text: "The same with any Nix: before 2.10, it takes a program here, without arguments", Command: `VM_PREBUILD_HOOK_TCG=allow nix build .#checks.x86_64-linux.my-test --option build-hook /usr/bin/nix-vm-build-hook`},
		{Text: "In nix.conf, for all builds", Command: "build-hook = /usr/bin/nix-vm-build-hook --memory 12G --cache /var/cache/results"},
	}
}

// Run is the hook.
func (c *hookCommand) Run(ctx context.Context) error {
	o, err := c.options()
	return run(ctx, o, err)
}

// run is the hook, with options that err says cannot be used, unless it is nil. Nix
// takes the end of a hook that has not answered for the end of its build, whatever it
// builds, so the hook has to answer.
func run(ctx context.Context, o buildhook.Options, err error) error {
	streams, notNix := buildhook.Streams()
	if notNix != nil {
		if err != nil {
			return err
		}
		return notNix
	}
	o.Unusable = err
	return buildhook.Run(ctx, o, streams)
}

// misused is the hook if its arguments are wrong. Nix gives its verbosity last.
func misused(ctx context.Context, args []string, usage error) error {
	if len(args) == 0 {
		return usage
	}
	verbosity, err := strconv.Atoi(args[len(args)-1])
	if err != nil {
		return usage
	}
	return run(ctx, buildhook.Options{Verbosity: verbosity}, usage)
}

func (c *hookCommand) options() (o buildhook.Options, err error) {
	o = buildhook.Options{Nix: c.Nix, Verbosity: c.Verbosity, Features: c.Feature, TCG: c.TCG == "allow", Caches: c.Cache}
	if o.Dir, err = c.dir(); err != nil {
		return o, err
	}
	if o.Budget, err = c.budget(); err != nil {
		return o, err
	}
	if c.Match != "" {
		if o.Match, err = regexp.Compile(c.Match); err != nil {
			return o, cli.Usagef("--match: %w", err)
		}
	}
	for _, path := range c.SandboxPath {
		if !filepath.IsAbs(path) || strings.ContainsAny(path, "=?# \t\n") {
			return o, cli.Usagef("--sandbox-path: %q is not an absolute path that Nix can take\nhint: it has no spaces, and none of =?#", path)
		}
		if _, err := os.Stat(path); err != nil {
			return o, cli.Usagef("--sandbox-path: %w", err)
		}
		o.SandboxPaths = append(o.SandboxPaths, filepath.Clean(path))
	}
	for _, text := range c.Keys {
		key, err := signature.ParsePublicKey(text)
		if err != nil {
			return o, cli.Usagef("--trusted-public-keys: %q: %w", text, err)
		}
		o.TrustedKeys = append(o.TrustedKeys, key)
	}
	for _, file := range c.SecretKey {
		text, err := os.ReadFile(file)
		if err != nil {
			return o, cli.Usagef("--secret-key: %w", err)
		}
		key, err := signature.LoadSecretKey(strings.TrimSpace(string(text)))
		if err != nil {
			return o, cli.Usagef("--secret-key: %s: %w", file, err)
		}
		o.Keys = append(o.Keys, key)
	}
	return o, nil
}
