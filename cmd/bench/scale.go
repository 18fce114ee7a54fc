package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"vm-prebuild/cmd/internal/cli"
	"vm-prebuild/cmd/internal/synthetic"
)

type scaleCommand struct {
	Counts []int  `default:"1000,3000,10000,30000,100000" help:"Numbers of store paths. Default: ${default}."`
	Runs   int    `default:"3" help:"Timed runs of each; medians are shown. Default: ${default}."`
	Bin    string `default:"bin" placeholder:"DIR" help:"Directory of our programs. Default: ${default}."`
	SVG    string `name:"svg" placeholder:"FILE" help:"Draw the results, too."`
	JSON   bool   `name:"json" help:"Print JSON instead of text."`
}

// curve is what a contender needed for closures of several sizes.
type curve struct {
	Name   string  `json:"name"`
	Points []point `json:"points"`
	Error  string  `json:"error,omitempty"`
}

type point struct {
	Size   int    `json:"size"` // store paths, or MiB of memory
	Wall   spread `json:"wall"`
	MaxRSS int64  `json:"maxRssBytes"`
}

// exponent is how cost has grown over the upper half of the points: 1 is in
// proportion to the size.
func (c curve) exponent() float64 {
	if len(c.Points) < 2 {
		return math.NaN()
	}
	from, to := c.Points[(len(c.Points)-1)/2], c.Points[len(c.Points)-1]
	return math.Log(to.Wall.Median.Seconds()/from.Wall.Median.Seconds()) / math.Log(float64(to.Size)/float64(from.Size))
}

// Run measures.
func (c *scaleCommand) Run(ctx context.Context, out *cli.IO) error {
	if c.Runs < 1 || len(c.Counts) == 0 {
		return cli.Usagef("--runs must be at least 1, and --counts must name some")
	}
	for i, n := range c.Counts {
		if n < 1 || i > 0 && n <= c.Counts[i-1] {
			return cli.Usagef("--counts must rise from at least 1")
		}
	}
	l, err := enterLab()
	if err != nil {
		return err
	}
	curves, machine, err := c.measure(ctx, l, out)
	if err = errors.Join(err, l.close()); err != nil {
		return err
	}
	if c.SVG != "" {
		if err := writePlot(c.SVG, drawing{title: "Seconds by store paths in the closure", base: 10}, curves, machine); err != nil {
			return err
		}
	}
	if c.JSON {
		err = out.JSON(curves)
	} else {
		_, err = fmt.Fprintf(out.Stdout, "%s\n\n%s", machine, curvesTable(c.Counts, curves))
	}
	if err != nil {
		return err
	}
	for _, curve := range curves {
		if curve.Error != "" {
			return cli.WithExitCode(cli.ExitFailed, fmt.Errorf("%s failed", curve.Name))
		}
	}
	return nil
}

func (c *scaleCommand) measure(ctx context.Context, l *lab, out *cli.IO) ([]curve, string, error) {
	if err := l.addTools(c.Bin, "nix-closure-import", "vm-prebuild"); err != nil {
		return nil, "", err
	}
	r, err := newReport(ctx, l, c.Runs, 1)
	if err != nil {
		return nil, "", err
	}
	var curves []curve
	for _, n := range c.Counts {
		j := scaleJob(n)
		results, err := l.run(ctx, j, c.Runs, func(format string, args ...any) { fmt.Fprintf(out.Stderr, format, args...) })
		if err != nil {
			return nil, "", err
		}
		for i, contender := range j.contenders {
			if i == len(curves) {
				curves = append(curves, curve{Name: contender.name})
			}
			side := results.side(contender.name)
			if side.Error != "" {
				curves[i].Error = side.Error
				continue
			}
			curves[i].Points = append(curves[i].Points, point{Size: n, Wall: side.Wall, MaxRSS: side.MaxRSS})
		}
	}
	return curves, r.machine(), nil
}

// scaleJob is all that can be done with a closure of n small paths.
func scaleJob(n int) *job {
	const fromTarget = `nix-closure-import exec --closure-info "$INFO" --from "$TARGET" `
	return &job{
		name: strconv.Itoa(n) + " paths", fs: "ext4", info: "target",
		closures: map[string]synthetic.Spec{"target": {Paths: n, Files: n, Bytes: 3000 * int64(n), Even: true, Seed: 1}},
		contenders: []contender{
			{name: loadDB, script: `nix-store --load-db --store "$TARGET" <"$INFO/registration"`},
			{name: "nix-closure-import, with files", script: `nix-closure-import --closure-info "$INFO" --from "$TARGET" --store "$WORK/new"`},
			{name: "nix-closure-import --register-only", script: registerOnly},
			{name: "… with a database image", prepare: makeImage, script: registerOnly + ` --db-image "$IMAGE"`},
			{name: "nix-closure-import exec", script: fromTarget + `-- true`},
			{name: execDB, script: fromTarget + `--db-image "$IMAGE" -- true`},
		},
	}
}

// curvesTable shows the curves as a table.
func curvesTable(counts []int, curves []curve) string {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "seconds for …\t")
	for _, n := range counts {
		fmt.Fprintf(table, "%d paths\t", n)
	}
	fmt.Fprint(table, "exponent\tmemory\n")
	for _, c := range curves {
		fmt.Fprint(table, c.Name, "\t")
		memory := int64(0)
		for _, n := range counts {
			wall := "–"
			for _, p := range c.Points {
				if p.Size == n {
					wall = seconds(p.Wall.Median)
				}
				memory = max(memory, p.MaxRSS)
			}
			fmt.Fprint(table, wall, "\t")
		}
		fmt.Fprintf(table, "%.2f\t%d MiB\n", c.exponent(), memory>>20)
	}
	_ = table.Flush() // a strings.Builder takes everything
	return text.String()
}
