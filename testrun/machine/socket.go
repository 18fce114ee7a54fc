package machine

import (
	"context"
	"fmt"
	"time"
)

// WaitForOpenUnixSocket waits until somebody listens on a Unix socket, given as
// a shell fragment, of the stream or datagram kind.
func (g *Guest) WaitForOpenUnixSocket(ctx context.Context, addr string, datagram bool, timeout time.Duration) error {
	kind, flags := "stream", "-z -U"
	if datagram {
		kind, flags = "datagram", "-z -uU"
	}
	return g.waitTest(ctx, fmt.Sprintf("waiting for UNIX-domain %s on '%s'", kind, addr),
		fmt.Sprintf("timeout 5 nc %s %s", flags, addr), timeout)
}
