package machine

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// shellChunk is how many bytes of a file one command carries. The kernel takes
// arguments of up to 128 KiB (MAX_ARG_STRLEN), quoted and in base64.
const shellChunk = 72 << 10

// CopyFromHostViaShell copies a file of the host to target in the guest, a
// shell fragment, through the shell alone; a relative source means one below
// dir. Like the target of a redirection, a new file gets the mode that the
// guest's umask leaves, and one that is there keeps its own.
func (g *Guest) CopyFromHostViaShell(ctx context.Context, dir, source, target string) error {
	if !filepath.IsAbs(source) {
		source = filepath.Join(dir, source)
	}
	f, err := os.Open(source)
	if err != nil {
		return Errorf(g.Machine.Name(), "copying from the host: %w", err)
	}
	defer f.Close()
	return g.nested(fmt.Sprintf("copying %s to %s through the shell", source, target), func() error {
		return g.writeThroughShell(ctx, f, target)
	})
}

// writeThroughShell writes all of r to a file of the guest, named by a shell
// fragment.
func (g *Guest) writeThroughShell(ctx context.Context, r io.Reader, target string) error {
	command := fmt.Sprintf("mkdir -p $(dirname %s) && : > %s", target, target)
	var encoded bytes.Buffer
	chunk := make([]byte, shellChunk)
	for {
		status, output, err := g.run(ctx, command, DefaultTimeout)
		if err != nil {
			return err
		}
		if status != 0 {
			g.Bus.Say(g.Machine.Name(), "output: "+text(output))
			return assertionf("writing %s through the shell failed (exit code %d)", target, status)
		}
		n, err := io.ReadFull(r, chunk)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
			return Errorf(g.Machine.Name(), "copying from the host: %w", err)
		}
		encoded.Reset()
		encoded.WriteString("echo ")
		w := base64.NewEncoder(base64.StdEncoding, &encoded)
		_, _ = w.Write(chunk[:n]) // a buffer takes anything
		_ = w.Close()
		fmt.Fprintf(&encoded, " | base64 -d >> %s", target)
		command = encoded.String()
	}
}
