package machine

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// connectLimit is how long one attempt to connect may take, unless g.Attempt
// says otherwise: a host that drops packets cannot hold up a wait.
const connectLimit = 5 * time.Second

// connect is a command that tries one connection with nc.
func (g *Guest) connect(arguments string) string {
	limit := connectLimit
	if g.Attempt > 0 {
		limit = g.Attempt
	}
	return fmt.Sprintf("timeout %s nc -z %s", strconv.FormatFloat(limit.Seconds(), 'f', -1, 64), arguments)
}

// tcp is a command that tries a connection to a TCP port.
func (g *Guest) tcp(addr string, port int) string {
	return g.connect(fmt.Sprintf("%s %d", Quote(addr), port))
}

// tcpHere is tcp for the guest itself, where nothing drops packets; bash can do
// that without another program.
func tcpHere(port int) string {
	return fmt.Sprintf("{ : </dev/tcp/127.0.0.1/%d || : </dev/tcp/::1/%[1]d; }", port)
}

// WaitForOpenPort waits until a TCP port of addr, seen from the guest, accepts
// connections.
func (g *Guest) WaitForOpenPort(ctx context.Context, addr string, port int, timeout time.Duration) error {
	test := g.tcp(addr, port)
	if addr == "localhost" {
		test = tcpHere(port)
	}
	return g.waitTest(ctx, fmt.Sprintf("waiting for TCP port %d on %s", port, addr), test, timeout)
}

// WaitForClosedPort waits until a TCP port of addr, seen from the guest, does
// not accept connections.
func (g *Guest) WaitForClosedPort(ctx context.Context, addr string, port int, timeout time.Duration) error {
	test := "! " + g.tcp(addr, port)
	if addr == "localhost" {
		test = "! " + tcpHere(port) + " && " + test // a bash without /dev/tcp would find all closed
	}
	return g.waitTest(ctx, fmt.Sprintf("waiting for TCP port %d on %s to be closed", port, addr), test, timeout)
}

// WaitForOpenUnixSocket waits until somebody listens on a Unix socket, given as
// a shell fragment, of the stream or datagram kind.
func (g *Guest) WaitForOpenUnixSocket(ctx context.Context, addr string, datagram bool, timeout time.Duration) error {
	kind, flag := "stream", "-U "
	if datagram {
		kind, flag = "datagram", "-uU "
	}
	return g.waitTest(ctx, fmt.Sprintf("waiting for UNIX-domain %s on '%s'", kind, addr), g.connect(flag+addr), timeout)
}
