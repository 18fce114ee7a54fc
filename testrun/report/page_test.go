package report_test

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/report"
)

// hostile is what a guest might say to whoever reads the report.
const hostile = `<script>document.title="pwned"</script><img src=x onerror="document.title='pwned'">"'></pre></details></svg>{{.}}&amp;` + "\x1b[2J\x00"

// film tells events at the times of a real test.
type film struct {
	sink event.Sink
	now  time.Time
	id   uint64
}

func (f *film) wait(d time.Duration) { f.now = f.now.Add(d) }

func (f *film) tell(events ...event.Event) {
	for _, e := range events {
		f.sink.Handle(event.Record{Time: f.now, Event: e})
	}
}

// block is a block of a machine; body "" succeeds.
func (f *film) block(machine, text, subtest string, body func() string) {
	f.id++
	id, begin := f.id, f.now
	f.tell(event.BlockOpen{ID: id, Machine: machine, Text: text, Subtest: subtest})
	failure := body()
	f.tell(event.BlockClose{ID: id, Machine: machine, Text: text, Subtest: subtest, Duration: f.now.Sub(begin), Failure: failure})
}

func (f *film) run(machine, command string, d time.Duration, status int, stdout, stderr string) string {
	failure := ""
	f.block(machine, "must succeed: "+command, "", func() string {
		f.wait(d)
		if stderr != "" {
			f.tell(event.Serial{Machine: machine, Text: strings.TrimSpace(stderr), Stderr: true})
		}
		f.tell(event.Command{Machine: machine, Text: command, Duration: d, Status: status, Stdout: stdout, Stderr: stderr})
		if status != 0 {
			failure = fmt.Sprintf("command `%s` failed (exit code %d)", command, status)
		}
		return failure
	})
	return failure
}

func (f *film) boot(machine string, lines int) {
	f.tell(event.MachineStarted{Machine: machine, PID: 4711, CommandLine: []string{
		"/nix/store/0c0p0w7zy8gzxd6s0yg7q1a5r2i5d0xk-qemu/bin/qemu-system-x86_64", "-m", "1024", "-name", machine,
		"-append", "console=ttyS0 init=/nix/store/x/init", "-device", "virtio-rng-pci"}})
	for i := range lines {
		f.wait(time.Millisecond)
		f.tell(event.Serial{Machine: machine, Text: fmt.Sprintf("[    %d.%06d] systemd[1]: Starting unit-%d.service…", i/1000, i%1000*1000, i)})
	}
}

// drama is a test of two machines that fails, in dir.
func drama(t testing.TB, sink event.Sink, dir string) {
	t.Helper()
	script := filepath.Join(dir, "test-script.py")
	var source strings.Builder
	for i := 1; i <= 40; i++ {
		switch i {
		case 23:
			source.WriteString("    client.succeed(\"curl -sf http://server/ | grep '<h1>It works'\")\n")
		case 24:
			source.WriteString("    # </script>" + hostile + "\n")
		default:
			fmt.Fprintf(&source, "    server.wait_for_unit(\"unit-%d.service\")\n", i)
		}
	}
	if err := os.WriteFile(script, []byte(source.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	shot := filepath.Join(dir, "screen <&>\" of it.png")
	if err := os.WriteFile(shot, screenshot(t), 0o644); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(dir, "journal.txt")
	if err := os.WriteFile(journal, []byte("Jan 01 server systemd[1]: "+hostile), 0o644); err != nil {
		t.Fatal(err)
	}

	f := &film{sink: sink, now: time.Date(2026, 11, 25, 20, 15, 0, 0, time.UTC)}
	begin := f.now
	f.tell(event.Log{Text: "Machine state will be reset. To keep it, pass --keep-machine-state", Always: true})
	f.block("", "start all VLans", "", func() string { f.wait(3 * time.Millisecond); return "" })
	f.tell(event.Log{Level: event.Info, Text: "Test will time out and terminate in 3600.0 seconds"})
	f.block("", "run the VM test script", "", func() string {
		f.block("", "start all VMs", "", func() string {
			f.block("client", "starting vm", "", func() string { f.wait(120 * time.Millisecond); f.boot("client", 150); return "" })
			f.block("server", "starting vm", "", func() string { f.wait(80 * time.Millisecond); f.boot("server", 700); return "" })
			return ""
		})
		f.block("", "subtest: boots", "boots", func() string {
			f.block("server", "waiting for unit multi-user.target", "", func() string {
				f.block("server", "waiting for the VM to finish booting", "", func() string {
					f.wait(3200 * time.Millisecond)
					f.tell(event.MachineConnected{Machine: "server", Duration: 4 * time.Second})
					return ""
				})
				f.wait(1400 * time.Millisecond)
				f.tell(event.Command{Machine: "server", Text: "systemctl is-active multi-user.target", Duration: 1400 * time.Millisecond, Stdout: "active\n"})
				return ""
			})
			f.block("client", "waiting for the VM to finish booting", "", func() string {
				f.wait(200 * time.Millisecond)
				f.tell(event.MachineConnected{Machine: "client", Duration: 200 * time.Millisecond})
				return ""
			})
			return ""
		})
		f.block("", "subtest: serves pages", "serves pages", func() string {
			f.block("server", "waiting for TCP port 80 on localhost", "", func() string { f.wait(900 * time.Millisecond); return "" })
			f.run("server", "systemctl reload nginx", 340*time.Millisecond, 0, "", "")
			f.block("server", "making screenshot screen", "", func() string {
				f.wait(60 * time.Millisecond)
				f.tell(event.Artifact{Machine: "server", Kind: "screenshot", Path: shot})
				return ""
			})
			for i := range 6 {
				f.run("client", fmt.Sprintf("curl -sf http://server/page-%d", i), 90*time.Millisecond, 0, "<h1>page</h1>\n", "")
			}
			return ""
		})
		f.block("", "subtest: "+hostile, hostile, func() string {
			f.run("client", "echo '"+hostile+"'", 200*time.Millisecond, 0, hostile, hostile)
			f.tell(event.Serial{Machine: "client", Text: hostile}, event.Log{Level: event.Warning, Machine: "client", Text: hostile},
				event.Log{Level: event.Debug, Text: "a debug message"}, event.Output{Machine: "client", Text: hostile})
			return ""
		})
		failure := ""
		f.block("", "subtest: greets", "greets", func() string {
			f.block("client", "waiting for success: curl -sf http://server/", "", func() string { f.wait(1300 * time.Millisecond); return "" })
			failure = f.run("client", "curl -sf http://server/ | grep '<h1>It works'", 450*time.Millisecond, 1, "", "curl: (22) The requested URL returned error: 503\n")
			return failure
		})
		f.tell(event.TestFailure{Lines: []string{`Test "greets" failed with error: "` + failure + `"`}})
		return failure
	})
	f.tell(event.TestFailure{Script: script, Line: 23, Lines: []string{
		"Traceback (most recent call last):", `  File "<string>", line 23, in <module>`,
		"    client.succeed(\"curl -sf http://server/ | grep '<h1>It works'\")", "",
		"RequestedAssertionFailed: command `curl -sf http://server/ | grep '<h1>It works'` failed (exit code 1)", hostile}})
	f.block("", "cleanup", "", func() string {
		f.tell(event.Artifact{Machine: "server", Kind: "journal", Path: journal})
		f.tell(event.Artifact{Machine: "server", Kind: "screenshot", Path: filepath.Join(dir, "missing.png")})
		f.wait(150 * time.Millisecond)
		f.tell(event.MachineStopped{Machine: "client", Reason: hostile, Expected: false},
			event.MachineStopped{Machine: "server", Reason: "killed", Expected: true})
		f.tell(event.Traffic{VLAN: 1, Machine: "client", FromFrames: 61, FromBytes: 5213, ToFrames: 70, ToBytes: 81231},
			event.Traffic{VLAN: 1, Machine: "server", FromFrames: 70, FromBytes: 81231, ToFrames: 61, ToBytes: 5213, Dropped: 3})
		return ""
	})
	f.tell(event.TestFinished{Duration: f.now.Sub(begin), Failure: "test failed: command failed"})
}

func screenshot(t testing.TB) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 720, 400))
	for y := range 400 {
		for x := range 720 {
			img.Set(x, y, color.RGBA{uint8(x / 6), 30, uint8(y / 3), 255})
		}
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func writtenPage(t testing.TB) (file, text string) {
	t.Helper()
	dir := t.TempDir()
	page := report.NewPage("vm-test-run-<web> & co")
	file = filepath.Join(dir, "report.html")
	if err := page.WriteAtClose(file); err != nil {
		t.Fatal(err)
	}
	drama(t, page, dir)
	if err := page.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, string(out)
}

func TestPage(t *testing.T) {
	_, page := writtenPage(t)
	for what, want := range map[string]string{
		"title":              "<title>Failed: vm-test-run-&lt;web&gt; &amp; co</title>",
		"subtests":           `3 passed, <span class="bad">1 failed</span>`,
		"failing line":       `class="here" aria-current="true"><span class="number">23</span><code>    client.succeed(`,
		"ten lines before":   `<span class="number">13</span>`,
		"ten lines after":    `<span class="number">33</span>`,
		"account":            "RequestedAssertionFailed: command",
		"picture":            "data:image/png;base64,iVBOR",
		"link to a picture":  `href="./screen%20%3c&amp;%3e%22%20of%20it.png"`,
		"missing picture":    "missing.png cannot be shown: no such file or directory",
		"command line":       "qemu-system-x86_64 \\\n  -m 1024 \\\n  -name client \\\n  -append &#39;console=ttyS0",
		"traffic":            `79.3 KiB`,
		"lane":               `<g class="lane" data-machine="server">`,
		"boot":               "boot: root shell after",
		"journal":            "Jan 01 server systemd[1]: &lt;script&gt;",
		"stderr of commands": "curl: (22) The requested URL returned error: 503",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("%s: %q is missing", what, want)
		}
	}
	for _, bad := range []string{`id="failure-2"`, "<script>document", "<img src=x", "\x1b", "\x00", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if n := strings.Count(page, "<script"); n != 1 {
		t.Errorf("%d scripts", n)
	}
	for _, external := range []string{"http://", "https://"} {
		for _, attribute := range []string{`src="`, `href="`, "url("} {
			if strings.Contains(page, attribute+external) {
				t.Errorf("the page refers to something outside: %s", attribute+external)
			}
		}
	}
}

// TestPageIDs: an id is there once, and what links lead to is there.
func TestPageIDs(t *testing.T) {
	_, page := writtenPage(t)
	ids := map[string]int{}
	for _, part := range strings.Split(page, ` id="`)[1:] {
		id, _, _ := strings.Cut(part, `"`)
		ids[id]++
	}
	for id, n := range ids {
		if n > 1 {
			t.Errorf("%d elements have the id %s", n, id)
		}
	}
	for _, part := range strings.Split(page, `href="#`)[1:] {
		if id, _, _ := strings.Cut(part, `"`); ids[id] == 0 {
			t.Errorf("a link leads nowhere: #%s", id)
		}
	}
}

// FuzzPage: whatever a guest or a script says, it is text.
func FuzzPage(f *testing.F) {
	f.Add(hostile, "web", "{{.}}")
	f.Add("</script>", "\"onload=alert(1)", "'><svg>")
	tags := func(t *testing.T, name, machine, text string) map[string]int {
		out := written(t, openPage,
			event.MachineStarted{Machine: machine, CommandLine: []string{name, text}},
			event.MachineConnected{Machine: machine},
			event.BlockOpen{ID: 1, Machine: machine, Text: text, Subtest: name},
			event.Serial{Machine: machine, Text: text},
			event.Log{Level: event.Error, Machine: machine, Text: text},
			event.Command{Machine: machine, Text: text, Stdout: "a" + text, Stderr: "b" + name, Failure: "c" + text},
			event.BlockClose{ID: 1, Machine: machine, Text: text, Subtest: name, Failure: "d" + text},
			event.TestFailure{Lines: []string{text, name}, Subtest: "e" + name},
			event.MachineStopped{Machine: machine, Reason: text},
			event.Artifact{Machine: machine, Kind: "screenshot", Path: "/nonexistent/" + name},
			event.Traffic{Machine: "f" + machine},
			event.TestFinished{Failure: "g" + text},
		)
		if i := bytes.IndexFunc(out, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' }); i >= 0 {
			t.Errorf("control character %q", out[i])
		}
		count := map[string]int{}
		for _, tag := range regexp.MustCompile(`<[/!a-zA-Z][a-z0-9]*`).FindAll(out, -1) {
			count[string(tag)]++
		}
		return count
	}
	f.Fuzz(func(t *testing.T, text, machine, name string) {
		// With empty names other parts of the page are there.
		if diff := cmp.Diff(tags(t, "name", "web", "text"), tags(t, "n"+name, "m"+machine, text)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestPageBounded: a guest and a script that never stop talking cost neither
// memory nor a page that no browser opens.
func TestPageBounded(t *testing.T) {
	p := report.NewPage("endless")
	file := filepath.Join(t.TempDir(), "report.html")
	if err := p.WriteAtClose(file); err != nil {
		t.Fatal(err)
	}
	f := &film{sink: p, now: time.Unix(0, 0)}
	long := strings.Repeat(hostile, 40)
	for i := range 5_000 {
		f.wait(time.Millisecond)
		f.block("web", fmt.Sprint("block ", i), fmt.Sprint("subtest ", i), func() string {
			f.tell(event.Serial{Machine: "web", Text: fmt.Sprint(i, long)}, event.Log{Text: fmt.Sprint(i, long)},
				event.Command{Machine: "web", Text: long, Stdout: strings.Repeat(long, 4), Stderr: long},
				event.MachineStarted{Machine: fmt.Sprint("m", i), CommandLine: []string{"qemu"}}, event.MachineStarted{Machine: "web"},
				event.TestFailure{Lines: strings.Split(long, "<")}, event.Artifact{Path: fmt.Sprint("/", i)}, event.Traffic{})
			return ""
		})
	}
	f.tell(event.TestFinished{})
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 96<<20 {
		t.Errorf("%d MiB are kept", m.HeapAlloc>>20)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(page) > 96<<20 {
		t.Errorf("%d MiB of page", len(page)>>20)
	}
	for _, want := range []string{"lines of the log are left out here", "commands are left out here", "the last 3000 of 5000 lines", "3500 shorter steps are not drawn", "4000 of 5000 commands are left out"} {
		if !bytes.Contains(page, []byte(want)) {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestPageUnfinished(t *testing.T) {
	dir := t.TempDir()
	p := report.NewPage("x")
	if err := p.WriteAtClose(filepath.Join(dir, "none", "report.html")); err == nil || !strings.Contains(err.Error(), "HTML report") {
		t.Errorf("%v", err)
	}
	file := filepath.Join(dir, "report.html")
	if err := p.WriteAtClose(file); err != nil {
		t.Fatal(err)
	}
	tell(p, event.MachineStarted{Machine: "web", CommandLine: []string{"qemu", "-S"}}, event.BlockOpen{ID: 1, Text: "never ends"})
	if got := p.CommandLine("web"); len(got) != 2 || p.CommandLine("other") != nil {
		t.Errorf("command line %q", got)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("a test that never finished has left %v", files)
	}
}

// TestPageCutOff: a block that is open at the end is shown as such.
func TestPageCutOff(t *testing.T) {
	out := written(t, openPage, event.MachineStarted{Machine: "web"}, event.BlockOpen{ID: 1, Text: "never ends", Subtest: "x"}, event.TestFinished{Failure: "time-out"})
	if !bytes.Contains(out, []byte("not ended")) || !bytes.Contains(out, []byte("ran until the end")) {
		t.Errorf("%s", out)
	}
}

// TestPageMessage: the log has of a failure what was wrong, not where the
// console of the machine ended.
func TestPageMessage(t *testing.T) {
	out := written(t, openPage, event.TestFailure{Lines: []string{"Traceback (most recent call last):", "  File", "", "MachineError: the message", "  [ 0.0 ] console"}},
		event.BlockOpen{ID: 1, Text: "x", Subtest: "x"}, event.BlockClose{ID: 1, Subtest: "x", Failure: "the reason\n  [ 0.0 ] console"}, event.TestFinished{Failure: "no"})
	for _, want := range []string{`<span class="text">MachineError: the message</span>`, `<div class="reason">the reason</div>`, `failed: the reason</span>`} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestPageEmpty(t *testing.T) {
	if out := written(t, openPage, event.TestFinished{}); !bytes.Contains(out, []byte("<title>Passed: x</title>")) {
		t.Errorf("%s", out)
	}
}

func openPage(file string) (*report.Page, error) {
	p := report.NewPage("x")
	return p, p.WriteAtClose(file)
}

func TestShellCommand(t *testing.T) {
	got := report.ShellCommand([]string{"qemu", "-a", "b c", "", "it's", "-x=1,y", "$HOME"})
	want := "qemu \\\n  -a 'b c' '' 'it'\\''s' \\\n  -x=1,y '$HOME'"
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
