package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"vm-prebuild/testrun/event"
)

// guestShared is where the guest mounts Dirs.Shared.
const guestShared = "/tmp/shared"

// CopyFromHost copies a file or directory of the host to target in the guest.
// A relative source means one below dir. Modes are kept; links are followed.
func (g *Guest) CopyFromHost(ctx context.Context, dir, source, target string) error {
	if !filepath.IsAbs(source) {
		source = filepath.Join(dir, source)
	}
	return g.throughShared(ctx, func(host, guest string) error {
		base := filepath.Base(source)
		if _, err := g.Succeed(ctx, []string{"mkdir -p " + guest}, 0); err != nil {
			return err
		}
		if err := copyTree(ctx, source, filepath.Join(host, base)); err != nil {
			return Errorf(g.Machine.Name(), "copying %s from the host: %w", source, err)
		}
		_, err := g.Succeed(ctx, []string{
			"mkdir -p " + Quote(filepath.Dir(target)),
			"cp -r " + Quote(guest+"/"+base) + " " + Quote(target),
		}, 0)
		return err
	})
}

// CopyFromMachine copies a file or directory of the guest into targetDir below
// the directory for results.
func (g *Guest) CopyFromMachine(ctx context.Context, source, targetDir string) error {
	return g.throughShared(ctx, func(host, guest string) error {
		_, err := g.Succeed(ctx, []string{
			"mkdir -p " + guest,
			"cp -r " + Quote(source) + " " + guest,
		}, 0)
		if err != nil {
			return err
		}
		base := filepath.Base(source)
		target := filepath.Join(g.Machine.Dirs().Out, targetDir, base)
		if err := os.MkdirAll(filepath.Dir(target), 0o777); err != nil {
			return fmt.Errorf("copying %s from machine %q: %w", source, g.Machine.Name(), err)
		}
		if err := copyTree(ctx, filepath.Join(host, base), target); err != nil {
			return Errorf(g.Machine.Name(), "copying %s to %s: %w", source, target, err)
		}
		return nil
	})
}

// throughShared calls f with a new directory of the shared one, as the host
// and as the guest names it.
func (g *Guest) throughShared(ctx context.Context, f func(host, guest string) error) error {
	if _, err := g.Shell(ctx); err != nil {
		return err
	}
	host, err := os.MkdirTemp(g.Machine.Dirs().Shared, "copy-")
	if err != nil {
		return Errorf(g.Machine.Name(), "directory shared with the guest: %w", err)
	}
	// The guest's root writes here, which a 9p server maps to our user.
	err = f(host, guestShared+"/"+filepath.Base(host))
	return errors.Join(err, removeAll(host))
}

// copyTree copies source to target, which must not exist if source is a
// directory. cp is coreutils', which the driver has on its PATH.
func copyTree(ctx context.Context, source, target string) error {
	if info, err := os.Stat(source); err != nil {
		return err
	} else if info.IsDir() {
		if _, err := os.Lstat(target); err == nil {
			return fmt.Errorf("%s: %w", target, fs.ErrExist)
		}
	}
	cmd := exec.CommandContext(ctx, "cp", "--recursive", "--dereference", "--preserve=mode", "--no-target-directory", "--", source, target)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// removeAll is os.RemoveAll for trees that hold read-only directories, as
// copies out of a Nix store do.
func removeAll(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// Screenshot writes a picture of the screen to file and returns its path. A
// name without a directory means one in the directory for results; one without
// a dot gets ".png".
func (g *Guest) Screenshot(ctx context.Context, dir, file string) (string, error) {
	s, err := capability[Screenshotter](g.Machine, "take screenshots")
	if err != nil {
		return "", err
	}
	if !strings.Contains(file, ".") {
		file += ".png"
	}
	switch {
	case !strings.Contains(file, "/"):
		file = filepath.Join(g.Machine.Dirs().Out, file)
	case !filepath.IsAbs(file):
		file = filepath.Join(dir, file)
	}
	block := g.Bus.Open(event.BlockOpen{
		Machine: g.Machine.Name(),
		Text:    "making screenshot " + file,
		Attrs:   map[string]string{"image": filepath.Base(file)},
	})
	if err := s.Screenshot(ctx, file); err != nil {
		block.Close(err.Error())
		return file, err
	}
	g.Bus.Emit(event.Artifact{Machine: g.Machine.Name(), Kind: "screenshot", Path: file})
	block.Close("")
	return file, nil
}
