package machine_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"vm-prebuild/testrun/machine"
)

// withScreen is a fake machine that shows one of several pictures after the
// other, the last one for ever.
type withScreen struct {
	*fake
	pictures []string
	taken    int
}

func (w *withScreen) Screenshot(_ context.Context, file string) error {
	picture := w.pictures[min(w.taken, len(w.pictures)-1)]
	w.taken++
	return os.WriteFile(file, []byte(picture), 0o600)
}

// reader reads a picture as its own text, and backwards as another variant.
type reader struct {
	read []string
	err  error
}

func (r *reader) Read(_ context.Context, picture []byte, onlyRaw bool, found func(string) bool) error {
	if r.err != nil {
		return r.err
	}
	r.read = append(r.read, string(picture))
	if found(string(picture)) || onlyRaw {
		return nil
	}
	backwards := slices.Clone(picture)
	slices.Reverse(backwards)
	found(string(backwards))
	return nil
}

func newScreen(t *testing.T, pictures ...string) (*machine.Guest, *reader, *recorder) {
	t.Helper()
	g, f, log := newGuest(t)
	r := &reader{}
	g.Machine, g.Reader = &withScreen{fake: f, pictures: pictures}, r
	return g, r, log
}

func TestScreenText(t *testing.T) {
	g, r, _ := newScreen(t, "abc")
	text, err := g.ScreenText(t.Context())
	if err != nil || text != "abc" {
		t.Errorf("%q %v", text, err)
	}
	texts, err := g.ScreenTextVariants(t.Context())
	if err != nil || strings.Join(texts, " ") != "abc cba" {
		t.Errorf("%q %v", texts, err)
	}
	r.err = errors.New("OCR requested but `tesseract` is not available")
	_, err = g.ScreenText(t.Context())
	if !errors.Is(err, r.err) || !strings.Contains(err.Error(), `machine "fake"`) {
		t.Error(err)
	}
	if err := g.WaitForText(t.Context(), "x", time.Minute); !errors.Is(err, r.err) {
		t.Error(err)
	}
}

func TestWaitForText(t *testing.T) {
	g, r, _ := newScreen(t, "dark", "boot", "boot", "dark", "login: ")
	if err := g.WaitForText(t.Context(), `nigol|login(?=:)`, time.Minute); err != nil {
		t.Error(err)
	}
	if got := strings.Join(r.read, ","); got != "dark,boot,login: " {
		t.Errorf("read %s: a screen must be read once", got)
	}
	g, _, _ = newScreen(t, "olleh")
	if err := g.WaitForText(t.Context(), "hello", 0); err != nil {
		t.Errorf("no variant and not one look: %v", err)
	}

	g, _, log := newScreen(t, "it's")
	for _, d := range []time.Duration{0, 300 * time.Millisecond} {
		err := g.WaitForText(t.Context(), "never", d)
		wantAssertion(t, err, "action timed out after ")
		wantAssertion(t, err, "(timeout="+machine.PythonSeconds(d)+")")
	}
	lines := strings.Join(log.lines, "\n")
	for _, part := range []string{"waiting for never to appear on screen", `Last OCR attempt failed. Text was: ["it's", "s'ti"]`} {
		if !strings.Contains(lines, part) {
			t.Errorf("%q is not in the log:\n%s", part, lines)
		}
	}
	condition := errors.New("condition")
	g.Between = func(context.Context) error { return condition }
	if err := g.WaitForText(t.Context(), "never", time.Minute); !errors.Is(err, condition) {
		t.Error(err)
	}
	if err := g.WaitForText(t.Context(), "(", time.Minute); err == nil || !strings.Contains(err.Error(), "regular expression") {
		t.Error(err)
	}
}

// withKeys is a fake machine with a keyboard and a serial port.
type withKeys struct {
	*fake
	pressed []string
	typed   string
	err     error
}

func (w *withKeys) PressKeys(_ context.Context, chord string) error {
	w.pressed = append(w.pressed, chord)
	return w.err
}

func (w *withKeys) TypeSerial(_ context.Context, text string) error {
	w.typed += text
	return nil
}

func TestKeysAndCharacters(t *testing.T) {
	g, f, log := newGuest(t)
	w := &withKeys{fake: f}
	g.Machine = w
	ctx := t.Context()
	if err := g.SendKey(ctx, "ctrl-alt-delete", 0, false); err != nil {
		t.Error(err)
	}
	if err := g.SendKey(ctx, "A", 0, true); err != nil {
		t.Error(err)
	}
	if err := g.SendChars(ctx, "a'B\n-_ 7\x00", 0); err != nil {
		t.Error(err)
	}
	const pressed = "ctrl-alt-delete shift-a a 0x28 shift-b ret 0x0C shift-0x0C spc 7 \x00"
	if got := strings.Join(w.pressed, " "); got != pressed {
		t.Errorf("pressed %q, want %q", got, pressed)
	}
	const said = "sending key 'ctrl-alt-delete'\n" + `sending keys "a'B\n-_ 7\x00"`
	if got := strings.Join(log.lines, "\n"); got != said {
		t.Errorf("said %s, want %s", got, said)
	}
	if err := g.SendConsole(ctx, "x\n"); err != nil || w.typed != "x\n" {
		t.Errorf("%q %v", w.typed, err)
	}
	w.err = errors.New("no such key")
	w.pressed = nil
	if err := g.SendChars(ctx, "abc", 0); !errors.Is(err, w.err) || len(w.pressed) != 1 {
		t.Errorf("%v after %q", err, w.pressed)
	}
}

func TestPythonString(t *testing.T) {
	for s, want := range map[string]string{
		"":             `''`,
		"a":            `'a'`,
		"it's":         `"it's"`,
		`"it's"`:       `'"it\'s"'`,
		"\\\n\r\t\x00": `'\\\n\r\t\x00'`,
		"é\u00a0":      `'é\xa0'`,
		"\u200b😀":      `'\u200b😀'`,
		"\U000e0001":   `'\U000e0001'`,
	} {
		if got := machine.PythonString(s); got != want {
			t.Errorf("%q is printed as %s, want %s", s, got, want)
		}
	}
}
