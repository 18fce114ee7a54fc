package python_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/script"
	"vm-prebuild/testrun/script/python"
)

// TestBreakpoint talks to a script that has stopped.
func TestBreakpoint(t *testing.T) {
	needPython(t)
	t.Parallel()
	address := freePort(t)
	_, port, _ := net.SplitHostPort(address)
	log, err := debugged(t, fmt.Sprintf(`
answer = 6 * 7
debug.breakpoint(port=%s)
assert answer == 43
print("went on")
`, port), address, "", "p answer\n", "42", "!answer += 1\n", "", "c\n")
	if err != nil {
		t.Error(err)
	}
	if !strings.Contains(log, "went on") {
		t.Errorf("did not go on: %s", log)
	}
}

// TestBreakpointAtFailure looks at the variables of a script that has failed.
func TestBreakpointAtFailure(t *testing.T) {
	needPython(t)
	const address = "127.0.0.1:4444" // where nixpkgs has it
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip("somebody else's port: ", err)
	}
	l.Close()
	_, err = debugged(t, "def f():\n  inner = 'seen'\n  machine.succeed('false')\nf()", address,
		"", "u\n", "", "u\n", "", "u\n", "", "p inner\n", "'seen'", "q\n")
	var failure *script.Failure
	if !errors.As(err, &failure) || failure.Kind != script.KindAssertion || failure.Line != 3 {
		t.Errorf("got %v", err)
	}
}

// debugged runs a script under a debug hook. It waits until the log says how
// to attach, connects to address, and has the given dialogue: a part of what
// comes up to a prompt, what is typed then, and so on.
func debugged(t *testing.T, text, address string, dialogue ...string) (log string, err error) {
	t.Helper()
	tr := newTranscript(t)
	s := session(tr, writeScript(t, text), "only")
	s.DebugHook = "/nix/store/x/bin/attach"
	ended := make(chan error, 1)
	go func() { ended <- python.Host{Stdout: tr.file, Stderr: tr.file}.Run(within(t, time.Minute), s) }()

	message := regexp.MustCompile(`!!! Breakpoint reached, run 'sudo /nix/store/x/bin/attach \d{7}'\n`)
	for !message.MatchString(tr.text(t)) {
		select {
		case err := <-ended:
			t.Fatalf("script ended: %v\n%s", err, tr.text(t))
		case <-time.After(20 * time.Millisecond):
		}
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for len(dialogue) > 0 {
		got := ""
		for !strings.HasSuffix(got, "(pdb) ") {
			b, err := answers.ReadByte()
			if err != nil {
				t.Fatalf("after %q: %v", got, err)
			}
			got += string(b)
		}
		if want := dialogue[0]; !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
		if _, err := io.WriteString(conn, dialogue[1]); err != nil {
			t.Fatal(err)
		}
		dialogue = dialogue[2:]
	}
	err = <-ended
	return tr.text(t), err
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
