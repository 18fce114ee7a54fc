package main

import (
	"context"
	_ "embed" // of the expression
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"vm-prebuild/cmd/internal/cli"
)

//go:embed sandbox.nix
var sandboxExpression string

// inSandbox runs a contender in a build of which the closure is an input: Nix
// mounts its paths one by one, as it does those of every build.
func (w *workspace) inSandbox(ctx context.Context, j *job, c contender) (sample, error) {
	nix, err := exec.LookPath("nix-store")
	if err != nil {
		return sample{}, err
	}
	if nix, err = filepath.EvalSymlinks(nix); err != nil {
		return sample{}, err
	}
	if strings.HasPrefix(nix, "/nix/store/") {
		return sample{}, failure{errors.New("the sandbox's store has nothing but the closure, and this machine's programs lie in /nix/store, too")}
	}
	expression := w.path("sandbox.nix")
	if err := os.WriteFile(expression, []byte(sandboxExpression), 0o644); err != nil {
		return sample{}, err
	}
	mounts := []string{
		"/bench/bin=" + w.bin, "/bench/nix.conf=" + w.path("etc/nix.conf"), "/bench/store-paths=" + filepath.Join(w.dir, "store-paths"),
		"/bench/info=" + filepath.Join(w.dir, j.info, "closure-info"), "/bench/image=" + filepath.Join(w.dir, "db-image"),
		"/usr", "/bin", "/lib", "/lib64",
	}
	mounts = slices.DeleteFunc(mounts, func(mount string) bool {
		_, err := os.Stat(mount[strings.Index(mount, "=")+1:])
		return err != nil // a machine need not have /lib64, nor a failed contender its image
	})
	out, err := w.output(ctx, `
nix-build --store "$SOURCE" --no-out-link --option sandbox true --option sandbox-paths "$MOUNTS" "$EXPRESSION" \
	--argstr storePaths "$INFO/store-paths" --argstr path /bench/bin:/usr/bin:/bin --argstr script "$SCRIPT" --argstr check "$CHECK"`,
		append(w.env(j), "MOUNTS="+strings.Join(mounts, " "), "EXPRESSION="+expression, "SCRIPT="+c.script, "CHECK="+c.check)...)
	if err != nil {
		return sample{}, failure{err}
	}
	data, err := os.ReadFile(filepath.Join(w.dir, "source", strings.TrimSpace(out)))
	if err != nil {
		return sample{}, err
	}
	var s sample
	if err := json.Unmarshal(data, &s); err != nil {
		return sample{}, fmt.Errorf("result of the build: %w", err)
	}
	return s, nil
}

// sampleCommand measures in a sandbox.
type sampleCommand struct {
	Command []string `arg:"" passthrough:"" help:"Command to run."`
}

// Run runs the command and prints what it cost.
func (c *sampleCommand) Run(ctx context.Context, out *cli.IO) error {
	s, err := measure(exec.CommandContext(ctx, c.Command[0], c.Command[1:]...))
	if err != nil {
		return err
	}
	return out.JSON(s)
}
