package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun/accel"
	"vm-prebuild/testrun/suite"
)

// driverFiles are the scripts that are measured, and the other side.
//
//go:embed testdata/driver
var driverFiles embed.FS

type driverCommand struct {
	Manifest string  `default:".cache/prebuilt/manifest.json" placeholder:"FILE" help:"Of the prebuilt example tests, whose guests are used. Default: ${default}."`
	Bin      string  `default:"bin" placeholder:"DIR" help:"Directory of our programs. Default: ${default}."`
	Python   string  `default:"python3" help:"Interpreter of both sides. Default: ${default}."`
	Jobs     string  `default:"." placeholder:"REGEX" help:"Do the jobs that match: commands, start, memory, idle, waits, copies, with their guest. Default: all."`
	Runs     int     `default:"3" help:"Runs of each side; medians are compared. Default: ${default}."`
	Scale    float64 `default:"1" help:"Part of the work of each run. Figures are judged at 1 only. Default: ${default}."`
	Markdown string  `placeholder:"FILE" help:"Write the results into a section of this document, too."`
	JSON     bool    `name:"json" help:"Print JSON instead of text."`
}

// driverJob is something that both sides do with one guest.
type driverJob struct {
	name   string // and, unless told otherwise, that of its script
	script string
	guest  string // played, mini or systemd
	count  int    // how much of it, at full scale
	runs   int    // at least so many
}

// driverJobs are all there are. A played guest is a bash on the host: what is
// measured then is the driver.
var driverJobs = []driverJob{
	{name: "start", guest: played, runs: 10},
	{name: "commands", guest: played, count: 2000},
	{name: "commands", guest: mini, count: 300},
	{name: "commands", guest: systemd, count: 300},
	{name: "memory", script: "commands", guest: played, count: 1000},
	{name: "idle", guest: played, count: 5},
	{name: "waits", guest: mini, count: 20},
	{name: "waits", guest: systemd, count: 20},
	{name: "copies", guest: mini, count: 64},
}

const (
	played  = "played"
	mini    = "mini"
	systemd = "systemd"
)

// guestOf says which machine of which prebuilt test is of that kind.
var guestOf = map[string]struct{ test, machine string }{
	mini:    {"vm-help", "machine"},
	systemd: {"vm-two-machines", "server"},
}

func (j driverJob) String() string { return j.name + " " + j.guest }

// figures are what one side's runs gave, by name and guest: "command mini".
type figures map[string][]float64

func (f figures) median(name string) float64 {
	all := slices.Sorted(slices.Values(f[name]))
	if len(all) == 0 {
		return math.NaN()
	}
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// Run measures.
func (c *driverCommand) Run(ctx context.Context, out *cli.IO) error {
	wanted, err := regexp.Compile(c.Jobs)
	if err != nil {
		return cli.Usagef("--jobs: %w", err)
	}
	if c.Runs < 1 || c.Scale <= 0 || c.Scale > 1 {
		return cli.Usagef("--runs must be at least 1, and --scale in (0, 1]")
	}
	b := &driverBench{command: c, log: out.Stderr}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	report := &driverReport{table: driverTable, ours: figures{}, theirs: figures{}, judged: c.Scale == 1, runs: c.Runs}
	if err := report.describe(ctx); err != nil {
		return err
	}
	for _, job := range driverJobs {
		if !wanted.MatchString(job.String()) {
			continue
		}
		for n := range max(c.Runs, int(float64(job.runs)*c.Scale)) {
			sides := []struct {
				theirs bool
				to     figures
			}{{true, report.theirs}, {false, report.ours}}
			if n%2 == 1 {
				slices.Reverse(sides)
			}
			for _, side := range sides {
				err := b.run(ctx, job, side.theirs, side.to)
				switch {
				case err == nil:
				case side.theirs && ctx.Err() == nil:
					// What it waits for may have been lost on the way.
					fmt.Fprintf(out.Stderr, "%s: theirs failed, its other runs count: %v\n", job, err)
					report.lost = append(report.lost, job.String())
				default:
					return fmt.Errorf("%s: %w", job, err)
				}
			}
		}
	}
	report.missing = b.missing
	rows := report.rows()
	if err := report.print(out, rows, c.JSON, c.Markdown); err != nil {
		return err
	}
	return missedOf(rows)
}

// driverBench is the place where both sides run.
type driverBench struct {
	command *driverCommand
	log     io.Writer
	dir     string            // short: sockets lie below it
	starts  map[string]string // start script by guest
	options string            // for QEMU, without which it would not start or be useless here
	missing string            // what the other side says that it lacks
}

func (b *driverBench) prepare(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(b.dir))
		}
	}()
	if err := os.CopyFS(filepath.Join(b.dir, "files"), driverFiles); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b.starts = map[string]string{played: filepath.Join(b.dir, "run-played-vm")}
	for name, text := range map[string]string{
		"run-played-vm": "#!/bin/sh\nexec " + self + " play-guest -- \"$@\"\n",
		// A unit of the played guest is active once there is a file called ready.
		"path/systemctl": "#!/bin/sh\ncase \" $* \" in\n*' list-jobs '*) echo '1 jobs listed.' ;;\n" +
			"*) if [ -e ready ]; then echo ActiveState=active; else echo ActiveState=activating; fi ;;\nesac\n",
	} {
		file := filepath.Join(b.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			return err
		}
	}
	manifest, err := suite.ReadManifest(b.command.Manifest)
	if err != nil {
		return fmt.Errorf("%w\nhint: make prebuilt", err)
	}
	for guest, from := range guestOf {
		if b.starts[guest], err = startScript(manifest.Tests[from.test].Driver, from.machine); err != nil {
			return err
		}
	}
	if kvm := accel.Probe(ctx); !kvm.KVM {
		b.options = "-machine accel=tcg"
	}
	return nil
}

var configurationFile = regexp.MustCompile(`/nix/store/[^ '"]*\.json`)

// startScript finds a machine's in the configuration that a test's wrapper
// passes to the driver.
func startScript(wrapper, machine string) (string, error) {
	text, err := os.ReadFile(wrapper)
	if err != nil {
		return "", err
	}
	text, err = os.ReadFile(string(configurationFile.Find(text)))
	if err != nil {
		return "", fmt.Errorf("configuration of %s: %w", wrapper, err)
	}
	var config struct {
		VMs map[string]struct {
			StartScript string `json:"start_script"`
		} `json:"vms"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return "", fmt.Errorf("configuration of %s: %w", wrapper, err)
	}
	vm, ok := config.VMs[machine]
	if !ok {
		return "", fmt.Errorf("%s has no machine %q", wrapper, machine)
	}
	return vm.StartScript, nil
}

// run has one side do a job once, and adds to its figures.
func (b *driverBench) run(ctx context.Context, job driverJob, theirs bool, to figures) error {
	dir, err := os.MkdirTemp(b.dir, "r")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	config, err := b.configure(dir, job)
	if err != nil {
		return err
	}
	count := max(1, int(math.Ceil(float64(job.count)*b.command.Scale)))
	s := &driverRun{
		args: []string{filepath.Join(b.command.Bin, "nixos-test-run"), "--config", config, "-o", dir},
		env: append(os.Environ(), "XDG_RUNTIME_DIR="+dir, "TMPDIR="+dir,
			"PATH="+filepath.Join(b.dir, "path")+":"+os.Getenv("PATH"), "NIXOS_TEST_PYTHON="+b.command.Python,
			startedEnv+"="+filepath.Join(dir, "started"), ownEnv+"="+filepath.Join(dir, "own"),
			"BENCH_QEMU_OPTIONS="+b.options, "BENCH_COUNT="+strconv.Itoa(count), "BENCH_GUEST="+job.guest),
		machineWords: []string{b.starts[job.guest], "play-guest", "qemu-system"},
		memory:       job.name == "memory",
	}
	if theirs {
		s.args = []string{b.command.Python, filepath.Join(b.dir, "files/testdata/driver/python_driver.py"), "--config", config, "-o", dir}
	}
	begin, err := s.run(ctx)
	if err != nil {
		return err
	}
	if theirs && b.missing == "" {
		b.missing = s.missing()
	}
	add := func(name string, value float64) { to[name+" "+job.guest] = append(to[name+" "+job.guest], value) }
	switch job.name {
	case "start":
		ns, err := readNumber(filepath.Join(dir, "started"))
		if err != nil {
			return err
		}
		add("start", time.Unix(0, ns).Sub(begin).Seconds())
	case "memory":
		add("memory", float64(s.maxMemory))
	default:
		for _, m := range s.marks {
			add(m.name, m.value)
		}
		if ns, err := readNumber(filepath.Join(dir, "own")); err == nil {
			add("own", time.Duration(ns).Seconds()/float64(count+1))
		} else if job.name == "commands" && job.guest == played {
			return err
		}
	}
	who := "ours"
	if theirs {
		who = "theirs"
	}
	fmt.Fprintf(b.log, "%s: %s: %.1f s\n", job, who, time.Since(begin).Seconds())
	return nil
}

// configure writes the configuration that both sides read.
func (b *driverBench) configure(dir string, job driverJob) (string, error) {
	script := job.script
	if script == "" {
		script = job.name
	}
	text, err := json.Marshal(map[string]any{
		"vms":            map[string]any{"machine": map[string]string{"name": "machine", "start_script": b.starts[job.guest]}},
		"containers":     map[string]any{},
		"vlans":          []int{1},
		"global_timeout": int((20 * time.Minute).Seconds()), "enable_ssh_backdoor": false,
		"test_script": filepath.Join(b.dir, "files/testdata/driver", script+".py"),
	})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "config.json")
	return file, os.WriteFile(file, text, 0o644)
}

func readNumber(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return n, nil
}
