package vlan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"unicode"
)

// A request is a packed C struct in the machine's byte order. Version 3, which
// libvdeplug 2.x sends:
//
//	uint32 magic, version = 3, type
//	struct sockaddr_un socket
//	char description[]    // to the end of the request, no NUL
//
// and version 1, which has no version field (its type is below 2):
//
//	uint32 magic, type
//	uint8 mac[6]
//	struct sockaddr_un socket
//	char description[]
//
// The low byte of type is the kind of request, the rest a wanted port number,
// 0 for any.
const (
	requestMagic = 0xfeedface
	maxRequest   = 256

	newControl = 0 // a port
	newPort0   = 1 // port 0

	sockaddrSize = 110 // uint16 family, char path[108]
	afUnix       = 1
	maxSocket    = 107 // bytes in a socket's path, without its NUL
)

// anyPort leaves the choice of a port number to the switch.
const anyPort = -1

// request is what a client asks for.
type request struct {
	port        int    // wanted number, or anyPort
	socket      string // the client's datagram socket, an absolute path
	description string // printable; may be empty
}

// errShort is returned for the beginning of a valid request.
var errShort = errors.New("request is too short")

// readRequest reads a request from a client's control connection. Clients send
// it in one piece, so whatever comes along with the fixed part is its
// description.
func readRequest(r io.Reader) (request, error) {
	buf := make([]byte, maxRequest+1)
	for n := 0; ; {
		k, readErr := r.Read(buf[n:])
		n += k
		req, err := parseRequest(buf[:n])
		switch {
		case !errors.Is(err, errShort):
			return req, err
		case readErr != nil:
			return request{}, fmt.Errorf("request of %d bytes: %w", n, readErr)
		}
	}
}

// parseRequest parses a whole request.
func parseRequest(b []byte) (request, error) {
	if len(b) > maxRequest {
		return request{}, fmt.Errorf("request has more than %d bytes", maxRequest)
	}
	if len(b) < 8 {
		return request{}, errShort
	}
	order := binary.NativeEndian
	if magic := order.Uint32(b); magic != requestMagic {
		return request{}, fmt.Errorf("request begins with %#08x, not %#08x", magic, requestMagic)
	}
	kind, rest := order.Uint32(b[4:]), b[8:]
	switch {
	case kind == 3: // a version
		if len(rest) < 4+sockaddrSize {
			return request{}, errShort
		}
		kind, rest = order.Uint32(rest), rest[4:]
	case kind < 2:
		const mac = 6
		if len(rest) < mac+sockaddrSize {
			return request{}, errShort
		}
		rest = rest[mac:]
	default:
		return request{}, fmt.Errorf("request of version %d", kind)
	}

	req := request{port: anyPort}
	switch wanted := kind >> 8; {
	case kind&0xff == newPort0:
		req.port = 0
	case kind&0xff != newControl:
		return request{}, fmt.Errorf("request of type %d", kind&0xff)
	case wanted != 0:
		req.port = int(wanted)
	}
	var err error
	if req.socket, err = parseSockaddr(rest[:sockaddrSize]); err != nil {
		return request{}, err
	}
	req.description = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, string(rest[sockaddrSize:]))
	return req, nil
}

// parseSockaddr returns the path of a struct sockaddr_un of a named socket.
func parseSockaddr(b []byte) (string, error) {
	if family := binary.NativeEndian.Uint16(b); family != afUnix {
		return "", fmt.Errorf("socket of address family %d", family)
	}
	path, _, terminated := bytes.Cut(b[2:sockaddrSize], []byte{0})
	if !terminated || !filepath.IsAbs(string(path)) {
		return "", fmt.Errorf("socket path %q is not absolute and of %d bytes at most", path, maxSocket)
	}
	return string(path), nil
}

// encodeSockaddr makes a struct sockaddr_un of a path of at most maxSocket
// bytes.
func encodeSockaddr(path string) []byte {
	b := make([]byte, sockaddrSize)
	binary.NativeEndian.PutUint16(b, afUnix)
	copy(b[2:2+maxSocket], path)
	return b
}
