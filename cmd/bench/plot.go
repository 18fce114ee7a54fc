package main

import (
	_ "embed" // of the template
	"fmt"
	"math"
	"os"
	"strings"
	"text/template"
)

//go:embed plot.svg.tmpl
var plotTemplate string

// The drawing's size, and where its axes cross, in pixels.
const (
	plotWidth, plotHeight   = 860, 460
	plotLeft, plotRight     = 70, 590
	plotTop, plotBottom     = 50, 400
	plotLabels, plotSpacing = plotRight + 14, 17
)

// colours tell our curves apart; theirs, the first, is grey.
var colours = [...]string{"#8a8a8a", "#d1495b", "#00798c", "#30638e", "#edae49", "#66a182"}

type plotLine struct {
	Name, Colour, Points string
	Dots                 [][2]float64
	EndX, EndY, LabelY   float64
}

type plotTick struct {
	At    float64
	Label string
}

// drawing says what curves are of.
type drawing struct {
	title string
	base  float64 // of the powers that the x axis names
}

// writePlot draws the curves with logarithmic axes, on which what is in
// proportion to the size is a line of slope 1.
func writePlot(file string, d drawing, curves []curve, machine string) error {
	logX := func(x int) float64 { return math.Log(float64(x)) / math.Log(d.base) }
	minX, maxX, minY, maxY := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, c := range curves {
		for _, p := range c.Points {
			x, y := logX(p.Size), math.Log10(p.Wall.Median.Seconds())
			minX, maxX, minY, maxY = min(minX, x), max(maxX, x), min(minY, y), max(maxY, y)
		}
	}
	minX, maxX, minY, maxY = math.Floor(minX), math.Ceil(maxX), math.Floor(minY), math.Ceil(maxY)
	if math.IsInf(minX, 0) || minX == maxX || minY == maxY {
		return fmt.Errorf("draw %s: there are too few figures", file)
	}
	atX := func(x float64) float64 { return plotLeft + (x-minX)/(maxX-minX)*(plotRight-plotLeft) }
	atY := func(y float64) float64 { return plotBottom - (y-minY)/(maxY-minY)*(plotBottom-plotTop) }

	data := struct {
		Width, Height, Left, Right, Top, Bottom, Labels int
		Title, Machine                                  string
		X, Y                                            []plotTick
		Lines                                           []plotLine
	}{plotWidth, plotHeight, plotLeft, plotRight, plotTop, plotBottom, plotLabels, d.title, machine, nil, nil, nil}
	for x := minX; x <= maxX; x++ {
		data.X = append(data.X, plotTick{atX(x), fmt.Sprintf("%.0f", math.Pow(d.base, x))})
	}
	for y := minY; y <= maxY; y++ {
		data.Y = append(data.Y, plotTick{atY(y), fmt.Sprintf("%g s", math.Pow(10, y))})
	}
	for i, c := range curves {
		if len(c.Points) == 0 {
			continue
		}
		line := plotLine{Name: c.Name, Colour: colours[i%len(colours)]}
		for _, p := range c.Points {
			x, y := atX(logX(p.Size)), atY(math.Log10(p.Wall.Median.Seconds()))
			line.Points += fmt.Sprintf("%.1f,%.1f ", x, y)
			line.Dots = append(line.Dots, [2]float64{x, y})
			line.EndX, line.EndY, line.LabelY = x, y, y
		}
		data.Lines = append(data.Lines, line)
	}
	spreadLabels(data.Lines)
	t, err := template.New("plot").Parse(plotTemplate)
	if err != nil {
		return err
	}
	var text strings.Builder
	if err := t.Execute(&text, data); err != nil {
		return err
	}
	return writeFile(file, text.String())
}

// spreadLabels moves labels that would overlap down.
func spreadLabels(lines []plotLine) {
	for {
		moved := false
		for i := range lines {
			for k := range lines {
				a, b := &lines[i], &lines[k]
				if i != k && a.LabelY <= b.LabelY && b.LabelY-a.LabelY < plotSpacing-0.01 && (a.LabelY < b.LabelY || i < k) {
					b.LabelY, moved = a.LabelY+plotSpacing, true
				}
			}
		}
		if !moved {
			return
		}
	}
}

// writeFile replaces a file.
func writeFile(file, text string) error {
	temp := file + ".tmp"
	if err := os.WriteFile(temp, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, file)
}
