package vlan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

// recorded is what vde_plug sends; testdata/record.py has recorded it.
func recorded(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/request-v3.bin")
	if err != nil {
		t.Fatal(err)
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the recording is of a little-endian machine")
	}
	return b
}

func TestRecordedRequest(t *testing.T) {
	req, err := parseRequest(recorded(t))
	if err != nil {
		t.Fatal(err)
	}
	if req.port != anyPort || !strings.HasPrefix(req.socket, "/tmp/vde1.ctl.") || !strings.HasPrefix(req.description, "vdeplug: user=root pid=") {
		t.Errorf("got %+v", req)
	}
}

// TestRecordedAnswer reads what vde_switch answers, as clients read our answers.
func TestRecordedAnswer(t *testing.T) {
	recorded(t) // or skip
	answer, err := os.ReadFile("testdata/answer.bin")
	if err != nil {
		t.Fatal(err)
	}
	if len(answer) != sockaddrSize {
		t.Errorf("the answer has %d bytes", len(answer))
	}
	socket, err := parseSockaddr(answer)
	if err != nil || !strings.HasPrefix(socket, "/tmp/vde1.") || !strings.Contains(socket, "/ctl/001.") {
		t.Errorf("got %q, %v", socket, err)
	}
	end := bytes.IndexByte(answer[2:], 0) + 3 // what is behind the path is nobody's business
	if ours := encodeSockaddr(socket); !bytes.Equal(ours[:end], answer[:end]) {
		t.Errorf("we would answer %q", ours)
	}
}

func TestParseRequest(t *testing.T) {
	long := "/" + strings.Repeat("x", maxSocket-1)
	tests := map[string]struct {
		in   []byte
		want request
		err  string
	}{
		"version 3":      {in: encodeRequest(3, newControl, "/s", "QEMU"), want: request{anyPort, "/s", "QEMU"}},
		"version 1":      {in: encodeRequest(1, newControl, "/s", "old"), want: request{anyPort, "/s", "old"}},
		"port 0":         {in: encodeRequest(3, newPort0, "/s", ""), want: request{0, "/s", ""}},
		"port 0, old":    {in: encodeRequest(1, newPort0, "/s", ""), want: request{0, "/s", ""}},
		"port 300":       {in: encodeRequest(3, newControl|300<<8, "/s", ""), want: request{300, "/s", ""}},
		"longest path":   {in: encodeRequest(3, newControl, long, ""), want: request{anyPort, long, ""}},
		"longest":        {in: encodeRequest(3, newControl, "/s", strings.Repeat("d", 134)), want: request{anyPort, "/s", strings.Repeat("d", 134)}},
		"unprintable":    {in: encodeRequest(3, newControl, "/s", "a\nb\x00\xff"), want: request{anyPort, "/s", "a?b?\ufffd"}},
		"too long":       {in: encodeRequest(3, newControl, "/s", strings.Repeat("d", 135)), err: "request has more than 256 bytes"},
		"no magic":       {in: bytes.Repeat([]byte{7}, 130), err: "request begins with 0x07070707, not 0xfeedface"},
		"version 2":      {in: encodeRequest(1, 2, "/s", ""), err: "request of version 2"},
		"version 4":      {in: encodeRequest(1, 4, "/s", ""), err: "request of version 4"},
		"type 2":         {in: encodeRequest(3, 2, "/s", ""), err: "request of type 2"},
		"no path":        {in: encodeRequest(3, newControl, "", ""), err: `socket path "" is not absolute`},
		"abstract":       {in: encodeRequest(3, newControl, "\x00/s", ""), err: `socket path "" is not absolute`},
		"relative":       {in: encodeRequest(3, newControl, "s", ""), err: `socket path "s" is not absolute`},
		"no terminator":  {in: encodeRequest(3, newControl, long+"x", ""), err: "is not absolute and of 107 bytes at most"},
		"address family": {in: bytes.Replace(encodeRequest(3, newControl, "/s", ""), []byte{1, 0, '/'}, []byte{2, 0, '/'}, 1), err: "socket of address family 2"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := readRequest(iotest.DataErrReader(bytes.NewReader(test.in)))
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want %s", err, test.err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}

func TestReadRequestInPieces(t *testing.T) {
	in := encodeRequest(3, newControl, "/s", "")
	got, err := readRequest(iotest.OneByteReader(bytes.NewReader(in)))
	if want := (request{anyPort, "/s", ""}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, version := range []int{1, 3} {
		in := encodeRequest(version, newControl, "/s", "")
		for n := range in {
			if _, err := readRequest(bytes.NewReader(in[:n])); !errors.Is(err, io.EOF) {
				t.Errorf("version %d, %d bytes: got %v", version, n, err)
			}
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(recorded(f))
	f.Add(encodeRequest(1, newControl, "/tmp/s", "old"))
	f.Add(encodeRequest(3, newPort0|9<<8, "/tmp/s", ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := parseRequest(b)
		if errors.Is(err, errShort) && len(b) >= 124 {
			t.Fatalf("%d bytes are too short", len(b))
		}
		if err != nil {
			return
		}
		if req.port < anyPort || req.port >= 1<<24 {
			t.Errorf("port %d", req.port)
		}
		// What we name to a client is what it named to us, were it the same.
		if socket, err := parseSockaddr(encodeSockaddr(req.socket)); err != nil || socket != req.socket {
			t.Errorf("socket %q became %q, %v", req.socket, socket, err)
		}
	})
}
