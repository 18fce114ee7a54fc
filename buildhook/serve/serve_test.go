package serve

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nix-community/go-nix/pkg/wire"

	"vm-prebuild/buildhook/derivation"
)

// answer is what a server sends; strings are in Nix's encoding.
func answer(t testing.TB, values ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, value := range values {
		var err error
		switch v := value.(type) {
		case int:
			err = wire.WriteUint64(&b, uint64(v))
		case string:
			err = wire.WriteString(&b, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func request() Request {
	return Request{
		Drv: "/nix/store/x.drv", Inputs: []string{"/nix/store/a"},
		Derivation: &derivation.Derivation{
			Outputs: map[string]derivation.Output{"out": {Path: "/nix/store/x"}, "log": {Path: "/nix/store/x-log"}},
			System:  "x86_64-linux", Builder: "/bin/sh", Args: []string{"-c", "true"}, Env: map[string]string{"b": "2", "a": "1"},
		},
		MaxSilentTime: 7 * time.Second, Timeout: time.Minute, MaxLogSize: 99,
	}
}

func TestBuild(t *testing.T) {
	var sent bytes.Buffer
	ready := 0
	q := request()
	q.Ready = func() { ready++ }
	result, err := Build(&sent, bytes.NewReader(answer(t, serverMagic, 2<<8|7, 3, "it failed", 1, 0, 5, 6)), q)
	if err != nil || result != (Result{3, "it failed"}) || result.OK() || ready != 1 {
		t.Errorf("%+v, %v, ready %d times", result, err, ready)
	}
	// What opServe in Nix reads, in its order; version 2.5 has no realisations.
	want := answer(t, clientMagic, 2<<8|5, 8, "/nix/store/x.drv",
		2, "log", "/nix/store/x-log", "", "", "out", "/nix/store/x", "", "",
		1, "/nix/store/a", "x86_64-linux", "/bin/sh", 2, "-c", "true", 2, "a", "1", "b", "2",
		7, 60, 99, 0, 0)
	if !bytes.Equal(sent.Bytes(), want) {
		t.Errorf("sent %q\nwant %q", sent.Bytes(), want)
	}
}

func TestBadServer(t *testing.T) {
	whole := answer(t, serverMagic, 2<<8|7, 0, "", 1, 0, 5, 6)
	for name, tt := range map[string]struct {
		says []byte
		want string
	}{
		"nothing":         {nil, "it ended without an answer"},
		"cut off":         {whole[:len(whole)-1], "it ended without an answer"},
		"another program": {[]byte("usage: nix-store"), "is not the greeting"},
		"another version": {answer(t, serverMagic, 3<<8), "speaks version 3"},
		"a long message":  {binary.LittleEndian.AppendUint64(whole[:24:24], 1<<40), "exceeds"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Build(io.Discard, bytes.NewReader(tt.says), request()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	broken := errors.New("broken pipe")
	if _, err := Build(failing{broken}, bytes.NewReader(whole), request()); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
