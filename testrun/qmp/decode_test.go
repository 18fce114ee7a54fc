package qmp

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func session(t testing.TB) [][]byte {
	t.Helper()
	data, err := os.ReadFile("testdata/session.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.SplitAfter(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
}

// The session was recorded by testdata/record.sh.
func TestDecodeSession(t *testing.T) {
	var out strings.Builder
	for _, line := range session(t) {
		msg, err := decode(line)
		switch {
		case err != nil:
			fmt.Fprintln(&out, "refused:", err)
		case msg.greeting:
			fmt.Fprintln(&out, "greeting")
		case msg.event != nil:
			fmt.Fprintln(&out, "event", msg.event.Event, msg.event.Data)
		case msg.err != nil:
			fmt.Fprintf(&out, "error %d: %s: %s\n", msg.id, msg.err.Class, msg.err.Desc)
		default:
			fmt.Fprintf(&out, "reply %d: %s\n", msg.id, msg.value)
		}
	}
	const golden = "testdata/session.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func FuzzDecode(f *testing.F) {
	for _, line := range session(f) {
		f.Add(line)
	}
	f.Add([]byte(`{"return": null, "id": 18446744073709551615}`))
	f.Add([]byte(`{"error": {}, "id": 1}`))
	f.Add([]byte(`{"event": "E", "data": []}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		line := bytes.Clone(data)
		msg, err := decode(line)
		if !bytes.Equal(line, data) {
			t.Fatal("decode changed its input")
		}
		if err != nil {
			return
		}
		kinds := 0
		for _, is := range []bool{msg.greeting, msg.event != nil, msg.value != nil, msg.err != nil} {
			if is {
				kinds++
			}
		}
		if kinds != 1 {
			t.Fatalf("%d kinds of message in one: %+v", kinds, msg)
		}
		if msg.value != nil {
			clear(line)
			if !json.Valid(msg.value) {
				t.Fatalf("the value is not JSON or shares memory with the line: %q", msg.value)
			}
		}
	})
}
