package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	info, err := os.Stat(source)
	if err != nil {
		return Errorf(g.Machine.Name(), "copying from the host: %w", err)
	}
	sh, err := g.Shell(ctx)
	if err != nil {
		return err
	}
	s, ok := sh.(Streamer)
	if !ok {
		return g.copyInThroughShared(ctx, source, target)
	}
	size := info.Size()
	if info.IsDir() {
		if size, err = tarLength(ctx, source, filepath.Base(target)); err != nil {
			return Errorf(g.Machine.Name(), "copying %s from the host: %w", source, err)
		}
	}
	if size > streamLimit {
		if err := g.copyInThroughShared(ctx, source, target); !errors.Is(err, errNotShared) {
			return err
		}
	}
	if info.IsDir() {
		err := g.feedTree(ctx, s, source, target)
		if errors.Is(err, errNoTar) {
			return g.copyInThroughShared(ctx, source, target)
		}
		return err
	}
	// As cp does: into a directory, or over a file whose mode stays.
	command := fmt.Sprintf("t=%s; mkdir -p %s; [ ! -d \"$t\" ] || t=$t/%s; if [ -e \"$t\" ]; then cat >\"$t\"; else cat >\"$t\"; chmod %o \"$t\"; fi",
		Quote(target), Quote(filepath.Dir(target)), Quote(filepath.Base(source)), info.Mode().Perm())
	return g.feedFile(ctx, s, source, command)
}

// streamLimit is up to how many bytes go into the guest as a stream. QEMU takes
// 4 KiB at a time from the host's end of a port, so that what is longer is
// quicker by way of the shared directory, if the guest sees it.
const streamLimit = 256 << 10

// CopyFromHostViaShell copies a file of the host to target in the guest, a
// shell fragment; a relative source means one below dir. Like the target of a
// redirection, a new file gets the mode that the guest's umask leaves, and one
// that is there keeps its own.
func (g *Guest) CopyFromHostViaShell(ctx context.Context, dir, source, target string) error {
	if !filepath.IsAbs(source) {
		source = filepath.Join(dir, source)
	}
	sh, err := g.Shell(ctx)
	if err != nil {
		return err
	}
	s, ok := sh.(Streamer)
	if !ok {
		return Errorf(g.Machine.Name(), "cannot feed commands")
	}
	return g.nested(fmt.Sprintf("copying %s to %s through the shell", source, target), func() error {
		return g.feedFile(ctx, s, source, fmt.Sprintf("mkdir -p $(dirname %s); cat >%s", target, target))
	})
}

// feedFile runs a command whose input is a file of the host.
func (g *Guest) feedFile(ctx context.Context, s Streamer, source, command string) error {
	f, err := os.Open(source)
	if err != nil {
		return Errorf(g.Machine.Name(), "copying from the host: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is neither a file nor a directory", source)
	}
	if err != nil {
		return Errorf(g.Machine.Name(), "copying from the host: %w", err)
	}
	var in io.Reader = f
	size := info.Size()
	if size == 0 { // it may be one of /proc
		content, err := io.ReadAll(f)
		if err != nil {
			return Errorf(g.Machine.Name(), "copying from the host: %w", err)
		}
		in, size = bytes.NewReader(content), int64(len(content))
	}
	return g.feed(ctx, s, "copying "+source+" from the host", command, in, size)
}

// feed runs a command with n bytes of input, which must succeed.
func (g *Guest) feed(ctx context.Context, s Streamer, what, command string, in io.Reader, n int64) error {
	r, err := s.Feed(ctx, command, in, n)
	switch {
	case err != nil:
		return g.explain(ctx, err)
	case r.Status == statusNotFound && strings.Contains(command, "tar -x"):
		return errNoTar
	case r.Status != 0:
		return g.failed(r, "%s failed (exit code %d)", what, r.Status)
	}
	return nil
}

// errNoTar says that the guest lacks the program tar.
var errNoTar = errors.New("the guest has no tar")

// statusChanged is GNU tar's when a file changed while it was read.
const statusChanged = 1

// statusNotFound is the exit status of a shell that does not find a program.
const statusNotFound = 127

// feedTree copies a directory of the host into the guest, as a tar archive.
func (g *Guest) feedTree(ctx context.Context, s Streamer, source, target string) error {
	r, err := g.run(ctx, fmt.Sprintf("if [ -d %s ]; then echo in; else echo as; fi", Quote(target)), DefaultTimeout)
	if err != nil {
		return err
	}
	into, name := filepath.Dir(target), filepath.Base(target)
	if Text(r.Stdout) == "in\n" {
		into, name = target, filepath.Base(source)
	}
	length, err := tarLength(ctx, source, name)
	if err != nil {
		return Errorf(g.Machine.Name(), "copying %s from the host: %w", source, err)
	}
	pr, pw := io.Pipe()
	defer pr.Close()
	go func() { pw.CloseWithError(writeTar(ctx, pw, source, name, true)) }()
	command := fmt.Sprintf("mkdir -p %[1]s; tar -xmf - -C %[1]s", Quote(into))
	return g.feed(ctx, s, "copying "+source+" from the host", command, pr, length)
}

// CopyFromMachine copies a file or directory of the guest into targetDir below
// the directory for results. Modes are kept; links are followed.
func (g *Guest) CopyFromMachine(ctx context.Context, source, targetDir string) error {
	sh, err := g.Shell(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(g.Machine.Dirs().Out, targetDir)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("copying %s from machine %q: %w", source, g.Machine.Name(), err)
	}
	if s, ok := sh.(Streamer); ok {
		err := g.receiveTree(ctx, s, source, dir)
		if !errors.Is(err, errNoTar) {
			return err
		}
	}
	return g.throughShared(ctx, func(host, guest string) error {
		if _, err := g.Succeed(ctx, []string{"cp -r " + Quote(source) + " " + guest}, 0); err != nil {
			return err
		}
		base := filepath.Base(source)
		if err := copyTree(ctx, filepath.Join(host, base), filepath.Join(dir, base)); err != nil {
			return Errorf(g.Machine.Name(), "copying %s to %s: %w", source, dir, err)
		}
		return nil
	})
}

// receiveTree has the guest send a tar archive, which is unpacked below dir.
func (g *Guest) receiveTree(ctx context.Context, s Streamer, source, dir string) error {
	source = filepath.Clean(source)
	command := fmt.Sprintf("tar -chf - -C %s -- %s", Quote(filepath.Dir(source)), Quote(filepath.Base(source)))
	pr, pw := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := unpackInto(dir, filepath.Base(source), pr)
		// What does not fit, or is no archive, must not hold up the guest.
		_, _ = io.Copy(io.Discard, pr)
		unpacked <- err
	}()
	r, err := s.Receive(ctx, command, pw)
	pw.Close()
	unpackErr := <-unpacked
	switch {
	case err != nil:
		return g.explain(ctx, err)
	case r.Status == statusNotFound:
		return errNoTar
	case r.Status == statusChanged && unpackErr == nil:
		// A log, say, has grown meanwhile. cp would not have noticed.
		g.Bus.Log(event.Warning, g.Machine.Name(), fmt.Sprintf("copying %s: %s", source, bytes.TrimSpace(r.Stderr)))
		return nil
	case r.Status != 0:
		return g.failed(r, "command `%s` failed (exit code %d)", command, r.Status)
	case unpackErr != nil:
		return Errorf(g.Machine.Name(), "copying %s to %s: %w", source, dir, unpackErr)
	}
	return nil
}

// errNotShared says that the guest does not see the shared directory.
var errNotShared = fmt.Errorf("the guest does not see the directory that it shares with the host, %s", guestShared)

// statusNotShared is how a command says so.
const statusNotShared = 97

// copyInThroughShared copies by way of the directory that the guest shares
// with the host.
func (g *Guest) copyInThroughShared(ctx context.Context, source, target string) (err error) {
	host, err := os.MkdirTemp(g.Machine.Dirs().Shared, "copy-")
	if err != nil {
		return Errorf(g.Machine.Name(), "directory shared with the guest: %w", err)
	}
	defer func() { err = errors.Join(err, removeAll(host)) }()
	base := filepath.Base(source)
	if err := copyTree(ctx, source, filepath.Join(host, base)); err != nil {
		return Errorf(g.Machine.Name(), "copying %s from the host: %w", source, err)
	}
	guest := guestShared + "/" + filepath.Base(host)
	r, err := g.run(ctx, fmt.Sprintf("[ -d %s ] || exit %d; mkdir -p %s; cp -r %s %s", guest, statusNotShared,
		Quote(filepath.Dir(target)), Quote(guest+"/"+base), Quote(target)), 0)
	switch {
	case err != nil:
		return err
	case r.Status == statusNotShared:
		return &Error{Machine: g.Machine.Name(), Err: errNotShared}
	case r.Status != 0:
		return g.failed(r, "copying %s from the host failed (exit code %d)", source, r.Status)
	}
	return nil
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
	guest := guestShared + "/" + filepath.Base(host)
	if r, err := g.run(ctx, "test -d "+guest, DefaultTimeout); err != nil || r.Status != 0 {
		if err == nil {
			err = &Error{Machine: g.Machine.Name(), Err: errNotShared}
		}
		return errors.Join(err, removeAll(host))
	}
	return errors.Join(f(host, guest), removeAll(host))
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
