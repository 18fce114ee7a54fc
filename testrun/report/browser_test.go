package report_test

import (
	"context"
	"encoding/json"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// probe runs in the page before everything else of it, the policy that forbids
// other scripts included, and leaves what it sees in an attribute.
const probe = `<script>
const problems = [];
addEventListener("error", (e) => problems.push(e.message || "cannot load " + e.target.outerHTML), true);
addEventListener("unhandledrejection", (e) => problems.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => problems.push(e.violatedDirective + " " + e.blockedURI));
const seen = {};
addEventListener("load", () => {
  const all = (s, in_ = document) => [...in_.querySelectorAll(s)];
  const visible = (e) => e.checkVisibility() && e.getClientRects().length > 0 && e.getBoundingClientRect().width >= 1;
  seen.title = document.title;
  seen.target = location.hash && visible(document.querySelector(location.hash));
  seen.lanes = {};
  for (const lane of all("#picture .lane")) seen.lanes[lane.dataset.machine] = all(".bar rect", lane).filter(visible).length;
  seen.tooltips = all("#picture .bar > title").length;
  const command = all(".log details.command")[1]; // the first one is the target
  const out = command.querySelector("pre, .reason");
  for (let e = command.parentElement; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
  seen.closed = visible(out);
  command.firstElementChild.click();
  seen.opened = visible(out);
  seen.images = all("img").map((i) => i.naturalWidth);
  const width = () => document.getElementById("picture").getBoundingClientRect().width;
  const before = width(), zoom = document.getElementById("zoom");
  zoom.value = 10;
  zoom.dispatchEvent(new Event("input"));
  seen.zoom = width() / before;
  const entries = () => all("#entries .entry").filter(visible).length;
  document.getElementById("open").click();
  const unfiltered = entries();
  document.getElementById("machine").value = "server";
  document.getElementById("machine").dispatchEvent(new Event("change"));
  seen.fewer = entries() > 0 && entries() < unfiltered;
  seen.foreign = all("#entries p.entry[data-machine=client]").filter(visible).length;
  seen.overflow = document.documentElement.scrollWidth > innerWidth;
  seen.problems = problems;
  document.documentElement.setAttribute("data-seen", JSON.stringify(seen));
});
</script>`

// TestPageInBrowser loads a page in Chromium.
func TestPageInBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	file, page := writtenPage(t)
	command := regexp.MustCompile(`<details class="entry command" id="(e\d+)"`).FindStringSubmatch(page)
	if command == nil {
		t.Fatal("the log has no command")
	}
	probed := strings.Replace(page, "<head>", "<head>"+probe, 1)
	if err := os.WriteFile(file, []byte(probed), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	profile := filepath.Join(t.TempDir(), "profile")
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--window-size=1280,1000", "--user-data-dir="+profile, "--enable-logging=stderr", "--dump-dom", "file://"+file+"#"+command[1])
	var stderr strings.Builder
	cmd.Stderr = &stderr
	dom, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	for line := range strings.Lines(stderr.String()) {
		if strings.Contains(line, ":CONSOLE") {
			t.Errorf("the browser's console: %s", line)
		}
	}
	match := regexp.MustCompile(`data-seen="([^"]*)"`).FindSubmatch(dom)
	if match == nil {
		t.Fatalf("the page's load did not end\n%s", stderr.String())
	}
	var seen struct {
		Title, Target                   any
		Lanes                           map[string]int
		Tooltips, Foreign               int
		Closed, Opened, Fewer, Overflow bool
		Images                          []int
		Zoom                            float64
		Problems                        []string
	}
	if err := json.Unmarshal([]byte(html.UnescapeString(string(match[1]))), &seen); err != nil {
		t.Fatalf("%v: %s", err, match[1])
	}
	if seen.Title != "Failed: vm-test-run-<web> & co" {
		t.Errorf("what a guest said ran: the title is %q", seen.Title)
	}
	if seen.Target != true {
		t.Error("a link into a closed block does not open it")
	}
	for _, lane := range []string{"", "client", "server"} {
		if seen.Lanes[lane] < 3 {
			t.Errorf("lane %q has %d bars", lane, seen.Lanes[lane])
		}
	}
	if seen.Tooltips < 20 {
		t.Errorf("%d tooltips", seen.Tooltips)
	}
	if seen.Closed || !seen.Opened {
		t.Error("the output of a command cannot be opened")
	}
	if len(seen.Images) != 1 || seen.Images[0] != 720 {
		t.Errorf("widths of the screenshots: %v", seen.Images)
	}
	if seen.Zoom < 9 {
		t.Errorf("zoomed %v times", seen.Zoom)
	}
	if !seen.Fewer || seen.Foreign > 0 {
		t.Errorf("the filter leaves %d entries of another machine", seen.Foreign)
	}
	if seen.Overflow {
		t.Error("the page is wider than the window")
	}
	if len(seen.Problems) > 0 {
		t.Errorf("problems: %q", seen.Problems)
	}
}
