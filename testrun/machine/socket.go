package machine

import (
	"context"
	"fmt"
	"time"
)

// DefaultAttempt is how long one attempt to connect may take.
const DefaultAttempt = 5 * time.Second

// WaitForOpenUnixSocket waits until somebody listens on a Unix socket, given as
// a shell fragment, of the stream or datagram kind. No attempt takes longer
// than the time given for it.
func (g *Guest) WaitForOpenUnixSocket(ctx context.Context, addr string, datagram bool, timeout, attempt time.Duration) error {
	kind, flags := "stream", "-z -U"
	if datagram {
		kind, flags = "datagram", "-z -uU"
	}
	return g.waitTest(ctx, fmt.Sprintf("waiting for UNIX-domain %s on '%s'", kind, addr),
		fmt.Sprintf("timeout %g nc %s %s", attempt.Seconds(), flags, addr), timeout)
}
