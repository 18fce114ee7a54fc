package qemu_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/qemu"
	"vm-prebuild/testrun/qmp"
)

// echoes is a firmware, in 8086 code at the reset vector, that writes back
// what it reads from its serial port.
var echoes = romEndingIn(
	0xba, 0xfd, 0x03, // again: mov $0x3fd, %dx
	0xec,       //              in %dx, %al
	0xa8, 0x01, //              test $1, %al
	0x74, 0xf8, //              jz again
	0xba, 0xf8, 0x03, //        mov $0x3f8, %dx
	0xec,       //              in %dx, %al
	0xee,       //              out %al, %dx
	0xeb, 0xf1, //              jmp again
	0,
)

// tellsKeys is a firmware that writes each byte of its keyboard to its serial
// port, in hexadecimal and with a line feed.
var tellsKeys = romEndingIn(slices.Concat([]byte{
	0xe4, 0x64, //       again: in $0x64, %al
	0xa8, 0x01, //              test $1, %al
	0x74, 0xfa, //              jz again
	0xe4, 0x60, //              in $0x60, %al
	0x88, 0xc3, //              mov %al, %bl
	0xc0, 0xe8, 0x04, //        shr $4, %al
	0xe8, 0x0e, 0x00, //        call hex
	0x88, 0xd8, //              mov %bl, %al
	0x24, 0x0f, //              and $15, %al
	0xe8, 0x07, 0x00, //        call hex
	0xb0, 0x0a, //              mov $'\n', %al
	0xe8, 0x07, 0x00, //        call out
	0xeb, 0xe0, //              jmp again
	0x3c, 0x0a, //         hex: cmp $10, %al
	0x1c, 0x69, //              sbb $0x69, %al
	0x2f,             //              das
	0xba, 0xf8, 0x03, //   out: mov $0x3f8, %dx
	0xee, //              out %al, %dx
	0xc3, //              ret
}, make([]byte, 7), []byte{
	0xeb, 0xce, // reset: jmp again
}, make([]byte, 14))...)

func romEndingIn(code ...byte) []byte {
	rom := make([]byte, 64<<10)
	copy(rom[len(rom)-len(code):], code)
	return rom
}

// startedWith starts a machine that has the given firmware.
func startedWith(t *testing.T, rom []byte, script string) (*qemu.Machine, *machine.Guest) {
	t.Helper()
	m := newMachine(t, script+firmware+` -bios "$TMPDIR/rom"`, 30*time.Second)
	if err := os.MkdirAll(m.Dirs().State, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.Dirs().State, "rom"), rom, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), machine.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	return m, &machine.Guest{Machine: m, Bus: event.NewBus()}
}

const patience = 30 * time.Second

// onInput is a firmware that executes code, of up to 100 bytes, when something
// arrives at its serial port.
func onInput(code ...byte) []byte {
	code = append([]byte{
		0xba, 0xfd, 0x03, //        mov $0x3fd, %dx
		0xec,       //       again: in %dx, %al
		0xa8, 0x01, //              test $1, %al
		0x74, 0xfb, //              jz again
	}, code...)
	reset := make([]byte, 16)
	reset[0], reset[1] = 0xeb, byte(-len(code)-2) // jmp to the first mov
	return romEndingIn(append(code, reset...)...)
}

// A guest that ends its machine is told from a QEMU that ends.
func TestGuestThatEndsItsMachine(t *testing.T) {
	for name, tt := range map[string]struct {
		rom  []byte
		want []string
	}{
		"reboots": {
			onInput(
				0xb0, 0xfe, 0xe6, 0x64, // out $0xfe, $0x64: the keyboard's controller resets
				0xeb, 0xfe, //             jmp .
			),
			[]string{"ended unexpectedly: exit code 0: the guest rebooted\nhint: ", "start(allow_reboot=True)", "wait_for_shutdown()"},
		},
		"powers off": {
			onInput(
				// PIIX4's power management, PCI device 1.3, gets the ports 0x600 …
				0x66, 0xb8, 0x40, 0x0b, 0, 0x80, 0xba, 0xf8, 0x0c, 0x66, 0xef, // outl $0x80000b40, $0xcf8
				0x66, 0xb8, 0x01, 0x06, 0, 0, 0xba, 0xfc, 0x0c, 0x66, 0xef, //    outl $0x601, $0xcfc
				0x66, 0xb8, 0x80, 0x0b, 0, 0x80, 0xba, 0xf8, 0x0c, 0x66, 0xef, // outl $0x80000b80, $0xcf8
				0xb0, 0x01, 0xba, 0xfc, 0x0c, 0xee, //                            outb $1, $0xcfc
				0xb8, 0, 0x20, 0xba, 0x04, 0x06, 0xef, //                         outw $0x2000, $0x604: sleep, S5
				0xeb, 0xfe, //                                                    jmp .
			),
			[]string{"ended unexpectedly: exit code 0: the guest powered off\nhint: ", "wait_for_shutdown()"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, g := startedWith(t, tt.rom, "")
			if err := g.SendConsole(t.Context(), "x"); err != nil {
				t.Fatal(err)
			}
			_, err := m.Shell(t.Context())
			wantError(t, err, tt.want...)
			// A script that waits for it has expected it.
			if err := g.WaitForShutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSerialInputAndConsoleText(t *testing.T) {
	m, g := startedWith(t, echoes, "echo from the script; echo 'the second line'; ")
	ctx := t.Context()
	wait := func(regex string) {
		t.Helper()
		if err := g.WaitForConsoleText(ctx, regex, patience); err != nil {
			t.Fatal(err)
		}
	}
	send := func(text string) {
		t.Helper()
		if err := g.SendConsole(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
	wait("script")
	wait("^the second") // it came along with the first
	// A prompt is a line that does not end.
	send("password: ")
	wait("password: $")
	send("secret\nnext\n")
	wait("secret")
	wait("next")
	// Nothing is looked at twice.
	err := g.WaitForConsoleText(ctx, "secret", 200*time.Millisecond)
	wantAssertion(t, err, "action timed out after ")
	// A wait that failed leaves everything; lines are one text.
	send("one\r\ntwo \nthr")
	err = g.WaitForConsoleText(ctx, "no such", 200*time.Millisecond)
	wantAssertion(t, err, "(timeout=0.2)")
	wait("onetwothr")
	send("ee\n")
	wait("ee")
	if got := g.ConsoleLog(); got != "from the script\nthe second line\npassword: secret\nnext\none\ntwo\nthree" {
		t.Errorf("console %q", got)
	}

	// Who waits is told of the end of the machine.
	failed := make(chan error, 1)
	go func() { failed <- g.WaitForConsoleText(ctx, "never", machine.Forever) }()
	time.Sleep(50 * time.Millisecond)
	if err := m.Crash(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-failed:
		wantError(t, err)
	case <-time.After(patience):
		t.Error("still waiting")
	}
	// The last words can be read; after that there is nothing to wait for.
	wantError(t, g.WaitForConsoleText(ctx, "three", machine.Forever), "is not running", "hint: call start() first")
	wantError(t, g.SendConsole(ctx, "x"), "is not running")
	if !strings.Contains(g.ConsoleLog(), "three") {
		t.Error("the console is lost")
	}
	if err := m.Start(ctx, machine.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	wait("from the script")
	if log := g.ConsoleLog(); strings.Contains(log, "three") {
		t.Errorf("console since the start: %q", log)
	}
}

func wantAssertion(t *testing.T, err error, text string) {
	t.Helper()
	var a *machine.AssertionError
	if !errors.As(err, &a) || !strings.Contains(a.Message, text) {
		t.Errorf("error %v, want an assertion with %q", err, text)
	}
}

func TestConsoleOfAMachineThatEnds(t *testing.T) {
	m := newMachine(t, firmware, patience)
	g := &machine.Guest{Machine: m, Bus: event.NewBus()}
	wantError(t, g.WaitForConsoleText(t.Context(), "x", machine.Forever), "is not running")

	m, g = startedWith(t, echoes, "echo last words; ")
	if _, err := m.MonitorCommand(t.Context(), "quit"); err != nil {
		t.Log(err)
	}
	if err := g.WaitForConsoleText(t.Context(), "last words", machine.Forever); err != nil {
		t.Error(err)
	}
	wantError(t, g.WaitForConsoleText(t.Context(), "more", machine.Forever), "ended unexpectedly: exit code 0")
}

func TestWaitForConsoleTextIsGivenUpWithItsContext(t *testing.T) {
	_, g := startedWith(t, echoes, "")
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, cause)
	defer cancel()
	if err := g.WaitForConsoleText(ctx, "never", machine.Forever); !errors.Is(err, cause) {
		t.Error(err)
	}
	condition := errors.New("polling condition failed")
	g.Between = func(context.Context) error { return condition }
	if err := g.WaitForConsoleText(t.Context(), "never", machine.Forever); !errors.Is(err, condition) {
		t.Error(err)
	}
}

// scanCodes are the codes of set 2 for the keys of a PC keyboard, which the
// guest sees on its wire.
var scanCodes = map[string]string{
	"a": "1C", "b": "32", "c": "21", "d": "23", "e": "24", "f": "2B", "g": "34", "h": "33", "i": "43", "j": "3B",
	"k": "42", "l": "4B", "m": "3A", "n": "31", "o": "44", "p": "4D", "q": "15", "r": "2D", "s": "1B", "t": "2C",
	"u": "3C", "v": "2A", "w": "1D", "x": "22", "y": "35", "z": "1A",
	"1": "16", "2": "1E", "3": "26", "4": "25", "5": "2E", "6": "36", "7": "3D", "8": "3E", "9": "46", "0": "45",
	"-": "4E", "=": "55", "[": "54", "]": "5B", ";": "4C", "'": "52", "`": "0E", "\\": "5D", ",": "41", ".": "49", "/": "4A",
	" ": "29", "\n": "5A", "\t": "0D",
}

// shifted are the characters on the same keys with shift, on an American
// keyboard.
const shifted = `!1@2#3$4%5^6&7*8(9)0_-+={[}]:;"'~` + "`" + `|\<,>.?/`

// onTheWire is what a keyboard says when text is typed.
func onTheWire(t *testing.T, text string) []string {
	t.Helper()
	const shift, release = "12", "F0"
	var codes []string
	for _, c := range text {
		key := string(c)
		upper := false
		if i := strings.Index(shifted, key); i >= 0 && i%2 == 0 {
			key, upper = shifted[i+1:i+2], true
		} else if 'A' <= c && c <= 'Z' {
			key, upper = strings.ToLower(key), true
		}
		code, ok := scanCodes[key]
		if !ok {
			t.Fatalf("no key for %q", key)
		}
		if upper {
			codes = append(codes, shift, code, release, code, release, shift)
		} else {
			codes = append(codes, code, release, code)
		}
	}
	return codes
}

func TestEveryCharacterIsTyped(t *testing.T) {
	m, g := startedWith(t, tellsKeys, "")
	var text strings.Builder
	for c := ' '; c <= '~'; c++ {
		text.WriteRune(c)
	}
	text.WriteString("\n\t")
	// The guest of this test is never idle and may not run for long on a busy
	// host, which a keyboard has no patience for.
	if err := g.SendChars(t.Context(), text.String(), 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	want := onTheWire(t, text.String())
	var got []string
	for deadline := time.Now().Add(patience); len(got) < len(want) && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		got = m.Console()
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d codes on the wire, want %d:\n%v\n%v", len(got), len(want), got, want)
	}
}

func TestKeys(t *testing.T) {
	m, g := startedWith(t, tellsKeys, "")
	ctx := t.Context()
	for _, key := range []string{"ctrl-alt-f1", "0x0C", "spc", "A", "meta_l"} {
		if err := g.SendKey(ctx, key, time.Millisecond, false); err != nil {
			t.Error(err)
		}
	}
	const want = "14 11 05 F0 05 F0 11 F0 14 " + "4E F0 4E " + "29 F0 29 " + "12 1C F0 1C F0 12 " + "E0 1F E0 F0 1F"
	got := ""
	for deadline := time.Now().Add(patience); len(got) < len(want) && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		got = strings.Join(m.Console(), " ")
	}
	if got != want {
		t.Errorf("on the wire: %s\nwant:        %s", got, want)
	}
	wantError(t, g.SendKey(ctx, "no-such-key", 0, true), `pressing "no-such-key"`, "hint: keys have QEMU's names")
	wantError(t, g.SendChars(ctx, "é", 0), `pressing "é"`)
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := g.SendKey(ctx, "a", time.Hour, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestQMPOfAScript(t *testing.T) {
	m, g := startedWith(t, echoes, "")
	ctx := t.Context()
	result, err := g.QMPSend(ctx, "query-status", nil)
	if err != nil || !strings.Contains(string(result), `"running"`) {
		t.Errorf("%s %v", result, err)
	}
	_, err = g.QMPSend(ctx, "no-such-command", json.RawMessage(`{}`))
	var refused *qmp.Error
	if !errors.As(err, &refused) || refused.Class != "CommandNotFound" {
		t.Error(err)
	}
	wantError(t, err, "CommandNotFound", "The command no-such-command has not been found")

	for _, command := range []string{"stop", "cont"} {
		if _, err := g.QMPSend(ctx, command, json.RawMessage(`{}`)); err != nil {
			t.Error(err)
		}
	}
	// The machine's start may have told of itself before.
	next := func() string {
		t.Helper()
		e, err := g.QMPNextEvent(ctx, patience)
		if err != nil || e == nil {
			t.Fatal(e, err)
		}
		if e.Timestamp.Seconds == 0 {
			t.Errorf("event %v has no time", e)
		}
		return e.Event
	}
	for e := next(); e != "STOP"; e = next() {
		t.Log(e)
	}
	if e := next(); e != "RESUME" {
		t.Error(e)
	}
	if e, err := g.QMPNextEvent(ctx, 0); e != nil || err != nil {
		t.Error(e, err)
	}
	if err := m.Crash(ctx); err != nil {
		t.Fatal(err)
	}
	if e := next(); e != "SHUTDOWN" {
		t.Error(e)
	}
	_, err = g.QMPNextEvent(ctx, patience)
	wantError(t, err, "QEMU has ended, and no event of it is left")
	_, err = g.QMPSend(ctx, "query-status", nil)
	wantError(t, err, "is not running")
}

func TestQMPBeforeTheStart(t *testing.T) {
	g := &machine.Guest{Machine: newMachine(t, firmware, patience), Bus: event.NewBus()}
	_, err := g.QMPNextEvent(t.Context(), patience)
	wantError(t, err, "QMP API is not ready yet, is the VM ready?")
}

func TestEventsOfAMachineThatDies(t *testing.T) {
	m, g := startedWith(t, echoes, "")
	failed := make(chan error, 1)
	go func() {
		for {
			if _, err := g.QMPNextEvent(t.Context(), patience); err != nil {
				failed <- err
				return
			}
		}
	}()
	if _, err := m.MonitorCommand(t.Context(), "quit"); err != nil {
		t.Log(err)
	}
	select {
	case err := <-failed:
		wantError(t, err, "ended unexpectedly: exit code 0")
	case <-time.After(patience):
		t.Error("still waiting")
	}
}

func TestForwardPort(t *testing.T) {
	_, g := startedWith(t, echoes, "")
	ctx := t.Context()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	if err := g.ForwardPort(ctx, port, 80); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	wantError(t, g.ForwardPort(ctx, port, 80), fmt.Sprintf("forwarding port %d of the host to port 80 of the guest: ", port))
}

// Who waits for a console that is silent costs nothing.
func TestWaitingTakesNoProcessorTime(t *testing.T) {
	_, g := startedWith(t, echoes, "")
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	wantAssertion(t, g.WaitForConsoleText(t.Context(), "never", 2*time.Second), "action timed out")
	if took := used() - before; took > 200*time.Millisecond {
		t.Errorf("%v of processor time in 2 s of waiting", took)
	}
}
