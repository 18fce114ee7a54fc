package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/testrun/accel"
	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/warm"
)

type warmCommand struct {
	Guests   string `default:"cmd/bench/testdata/warm.nix" placeholder:"FILE" help:"Expression of the machines. Default: ${default}."`
	Suite    string `default:".cache/warm" placeholder:"DIR" help:"Tests with warm machines, as .#run-vm-tests-warm builds them. Default: ${default}."`
	Runs     int    `default:"5" help:"Starts of each kind; medians are compared. Default: ${default}."`
	Clones   int    `default:"8" help:"Machines that are restored at once. Default: ${default}."`
	Sizes    []int  `default:"128,256,512,1024,2048,4096,8192" placeholder:"MIB" help:"Sizes of memory to draw. Default: ${default}."`
	Markdown string `placeholder:"FILE" help:"Write the results into a section of this document, too."`
	SVG      string `name:"svg" placeholder:"FILE" help:"Measure all sizes of memory, too, and draw the results."`
	JSON     bool   `name:"json" help:"Print JSON instead of text."`
}

// warmGuest is a machine at the point at which it is saved.
type warmGuest struct {
	name  string // and its kind, in warm.nix
	ready string
}

var warmGuests = []warmGuest{{mini, "shell"}, {systemd, "unit:multi-user.target"}}

// smallest is the least memory, in MiB, with which a guest boots.
var smallest = map[string]int{mini: 128, systemd: 256}

var warmLines = []driverLine{
	{figure: "start mini", what: "to the first answer", unit: "s", factor: 1, ratio: 25},
	{figure: "start systemd", what: "to the first answer after multi-user.target", unit: "s", factor: 1, ratio: 100},
	{figure: "restore mini", what: "restored to the first answer", unit: "s", factor: 1, limit: 0.5, alone: true},
	{figure: "restore systemd", what: "restored to the first answer", unit: "s", factor: 1, limit: 0.5, alone: true},
	{figure: "clones mini", what: "%d at once, all answer", unit: "s", factor: 1, limit: 3, alone: true},
	{figure: "clones systemd", what: "%d at once, all answer", unit: "s", factor: 1, limit: 3, alone: true},
	{figure: "private mini", what: "a clone's own memory", unit: "MB", factor: 1e-6, limit: 80, alone: true},
	{figure: "private systemd", what: "a clone's own memory", unit: "MB", factor: 1e-6, limit: 80, alone: true},
	{figure: "save mini", what: "saving, beyond writing what memory was touched", unit: "s", factor: 1, limit: 1, alone: true},
	{figure: "save systemd", what: "saving, beyond writing what memory was touched", unit: "s", factor: 1, limit: 1, alone: true},
	{figure: "suite example", what: "the example's five tests", unit: "s", factor: 1, ratio: 5},
	{figure: "packed mini", what: "packed, part of the touched memory", unit: "%", factor: 100, limit: 40, alone: true},
	{figure: "packed systemd", what: "packed, part of the touched memory", unit: "%", factor: 100, limit: 40, alone: true},
	{figure: "touched mini", what: "memory that was touched", unit: "MB", factor: 1e-6, alone: true},
	{figure: "touched systemd", what: "memory that was touched", unit: "MB", factor: 1e-6, alone: true},
}

// Run measures.
func (c *warmCommand) Run(ctx context.Context, out *cli.IO) error {
	if c.Runs < 1 || c.Clones < 1 {
		return cli.Usagef("--runs and --clones must be at least 1")
	}
	b := &warmBench{command: c, log: out.Stderr, cold: figures{}, warm: figures{}}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	report := &driverReport{table: b.table(), ours: b.warm, theirs: b.cold, judged: true, runs: c.Runs}
	if err := report.describe(ctx); err != nil {
		return err
	}
	for _, g := range warmGuests {
		if err := b.measure(ctx, g); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	if err := b.suite(ctx); err != nil {
		return err
	}
	rows := report.rows()
	if err := report.print(out, rows, c.JSON, c.Markdown); err != nil {
		return err
	}
	if c.SVG != "" {
		curves, err := b.sizes(ctx)
		if err != nil {
			return err
		}
		if err := writePlot(c.SVG, drawing{title: "Seconds to the first answer by MiB of memory", base: 2}, curves, report.machine); err != nil {
			return err
		}
	}
	return missedOf(rows)
}

// warmBench is the place where machines are booted and restored.
type warmBench struct {
	command    *warmCommand
	log        io.Writer
	dir        string
	starts     map[string]string
	tcg        bool
	cold, warm figures
}

func (b *warmBench) table() table {
	lines := slices.Clone(warmLines)
	for i := range lines {
		lines[i].what = strings.ReplaceAll(lines[i].what, "%d", strconv.Itoa(b.command.Clones))
	}
	return table{lines: lines, heads: []string{"what", "guest", "booted", "restored", "ratio", "target", ""}, heading: warmHeading,
		intro: func(r *driverReport) string { return fmt.Sprintf(warmIntro, r.machine) }}
}

func (b *warmBench) prepare(ctx context.Context) (err error) {
	b.tcg = !accel.Probe(ctx).KVM
	sizes, err := json.Marshal(b.command.Sizes)
	if err != nil {
		return err
	}
	if b.command.SVG == "" {
		sizes = []byte("[]")
	}
	build := exec.CommandContext(ctx, "nix-build", b.command.Guests, "--no-out-link", "--argstr", "sizes", string(sizes))
	build.Stderr = b.log
	file, err := build.Output()
	if err != nil {
		return fmt.Errorf("build the machines of %s: %w\nhint: . nix/offline/env.sh", b.command.Guests, err)
	}
	text, err := os.ReadFile(strings.TrimSpace(string(file)))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &b.starts); err != nil {
		return fmt.Errorf("%s: %w", b.command.Guests, err)
	}
	b.dir, err = os.MkdirTemp("", "bench")
	return err
}

// measure boots and restores a guest, in turns.
func (b *warmBench) measure(ctx context.Context, g warmGuest) error {
	ready, err := warm.ParseReady(g.ready)
	if err != nil {
		return err
	}
	store := warm.Store{Dir: filepath.Join(b.dir, g.name)}
	if err := b.save(ctx, g, ready, store); err != nil {
		return err
	}
	add := func(to figures, name string, value float64) {
		to[name+" "+g.name] = append(to[name+" "+g.name], value)
	}
	for n := range b.command.Runs {
		for _, cold := range [][]bool{{true, false}, {false, true}}[n%2] {
			o := warm.Options{Mode: warm.Require, Ready: ready, Store: store}
			if cold {
				o.Mode = warm.Off
			}
			took, _, err := b.start(ctx, g.name, o, 1)
			if err != nil {
				return err
			}
			if cold {
				add(b.cold, "start", took)
			} else {
				add(b.warm, "start", took)
				add(b.warm, "restore", took)
			}
		}
		took, private, err := b.start(ctx, g.name, warm.Options{Mode: warm.Require, Ready: ready, Store: store}, b.command.Clones)
		if err != nil {
			return err
		}
		add(b.warm, "clones", took)
		add(b.warm, "private", private)
	}
	return os.RemoveAll(store.Dir)
}

// save saves the state, several times, and compares with writing its memory.
func (b *warmBench) save(ctx context.Context, g warmGuest, ready warm.Ready, store warm.Store) error {
	for range b.command.Runs {
		if err := os.RemoveAll(store.Dir); err != nil {
			return err
		}
		var saving float64
		sink := sinkFunc(func(r event.Record) {
			if log, ok := r.Event.(event.Log); ok {
				_, _ = fmt.Sscanf(log.Text, "saved its state in %g seconds", &saving)
			}
		})
		if _, _, err := b.start(ctx, g.name, warm.Options{Mode: warm.Auto, Save: true, Ready: ready, Store: store}, 1, sink); err != nil {
			return err
		}
		if saving == 0 {
			return errors.New("it was not saved")
		}
		rams, err := filepath.Glob(filepath.Join(store.Dir, "*", "ram"))
		if err != nil || len(rams) != 1 {
			return errors.Join(err, fmt.Errorf("its memory is not in %s", store.Dir))
		}
		writing, touched, err := b.rewrite(ctx, rams[0])
		if err != nil {
			return err
		}
		b.warm["save "+g.name] = append(b.warm["save "+g.name], saving-writing)
		packed, err := store.Pack(ctx, filepath.Base(filepath.Dir(rams[0])), filepath.Join(b.dir, "packed"), warm.PackOptions{HostBound: true})
		if err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(b.dir, "packed")); err != nil {
			return err
		}
		b.warm["packed "+g.name] = append(b.warm["packed "+g.name], float64(packed.PackedBytes)/touched)
		b.warm["touched "+g.name] = append(b.warm["touched "+g.name], touched)
		fmt.Fprintf(b.log, "%s: saved in %.2f s; writing its %.0f MB takes %.2f s\n", g.name, saving, touched/1e6, writing)
	}
	return nil
}

// suite runs the example's tests with machines that boot, and such that are
// restored. Their states are unpacked before.
func (b *warmBench) suite(ctx context.Context) error {
	run := func(mode warm.Mode) (took float64, err error) {
		dir := filepath.Join(b.dir, "suite")
		defer os.RemoveAll(filepath.Join(dir, "results"))
		cmd := exec.CommandContext(ctx, filepath.Join(b.command.Suite, "bin/run-vm-tests"), "--jobs", "1",
			"--warm", string(mode), "--warm-dir", filepath.Join(dir, "states"), "--output", filepath.Join(dir, "results"))
		begin := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%v: %w\n%s\nhint: nix build .#run-vm-tests-warm -o %s", cmd, err, out, b.command.Suite)
		}
		took = time.Since(begin).Seconds()
		fmt.Fprintf(b.log, "example: %s: %.1f s\n", mode, took)
		return took, nil
	}
	if _, err := run(warm.Require); err != nil {
		return err
	}
	for n := range b.command.Runs {
		for _, mode := range [][]warm.Mode{{warm.Off, warm.Require}, {warm.Require, warm.Off}}[n%2] {
			took, err := run(mode)
			if err != nil {
				return err
			}
			to := b.warm
			if mode == warm.Off {
				to = b.cold
			}
			to["suite example"] = append(to["suite example"], took)
		}
	}
	return nil
}

// rewrite copies what is in a sparse file, and says how long that takes, in
// seconds, and how much it is, in bytes.
func (b *warmBench) rewrite(ctx context.Context, file string) (took, size float64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return 0, 0, &os.PathError{Op: "stat", Path: file, Err: err}
	}
	begin := time.Now()
	copied := filepath.Join(b.dir, "copy")
	if out, err := exec.CommandContext(ctx, "sh", "-c", `cp --sparse=auto --reflink=never "$0" "$1" && sync "$1"`, file, copied).CombinedOutput(); err != nil {
		return 0, 0, fmt.Errorf("copy %s: %w: %s", file, err, out)
	}
	return time.Since(begin).Seconds(), float64(st.Blocks * 512), os.Remove(copied)
}

// sizes measures guests with memory of all sizes.
func (b *warmBench) sizes(ctx context.Context) ([]curve, error) {
	var curves []curve
	for _, g := range warmGuests {
		ready, err := warm.ParseReady(g.ready)
		if err != nil {
			return nil, err
		}
		cold, restored := curve{Name: g.name + " booted"}, curve{Name: g.name + " restored"}
		for _, size := range b.command.Sizes {
			if size < smallest[g.name] {
				continue
			}
			name := g.name + strconv.Itoa(size)
			o := warm.Options{Mode: warm.Auto, Save: true, Ready: ready, Store: warm.Store{Dir: filepath.Join(b.dir, name)}}
			if _, _, err := b.start(ctx, name, o, 1); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			for mode, c := range map[warm.Mode]*curve{warm.Off: &cold, warm.Require: &restored} {
				o.Mode, o.Save = mode, false
				var samples []sample
				for range b.command.Runs {
					took, _, err := b.start(ctx, name, o, 1)
					if err != nil {
						return nil, fmt.Errorf("%s: %w", name, err)
					}
					samples = append(samples, sample{Wall: time.Duration(took * float64(time.Second))})
				}
				c.Points = append(c.Points, point{Size: size, Wall: spreadOf(samples, func(s sample) time.Duration { return s.Wall })})
			}
			if err := os.RemoveAll(o.Store.Dir); err != nil {
				return nil, err
			}
		}
		curves = append(curves, cold, restored)
	}
	return curves, nil
}

// warmHeading begins the section of the document.
const warmHeading = "\n## Warm machines\n"

const warmIntro = `
Written by ` + "`bench warm --markdown`" + `, not by hand. %s.

The same machine is booted and restored from its state, in turns, until its root
shell has answered a first command. The states are in the page cache, as they are after
the first of several tests. *mini* and *systemd* are the guests of nix/offline, with 512
and 1,024 MiB of memory and their store from an image. A clone's own memory is what its
QEMU shares with nobody. *example* is all of the example's tests, one after the other,
with all that their scripts do, from states that were unpacked before. Writing touched memory is ` + "`cp`" + ` of the sparse file, and
` + "`sync`" + ` of the copy.

`
