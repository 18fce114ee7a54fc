package ocr

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"math"

	"golang.org/x/image/draw"
)

// Letters of a text console are 9 by 16 pixels, and tesseract was taught
// larger ones: pictures are enlarged, as long as they do not take for ever.
const (
	enlargement = 3
	maxPixels   = 8 << 20
)

// prepare decodes a PNG and makes what the variants are made of: the picture
// in grey, enlarged and with all the contrast that there can be.
func prepare(picture []byte) (*image.Gray, error) {
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return nil, fmt.Errorf("picture of the screen: %w", err)
	}
	grey := enlarge(img)
	stretch(grey)
	return grey, nil
}

func encode(img image.Image) ([]byte, error) {
	var b bytes.Buffer
	fast := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := fast.Encode(&b, img); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// enlarge returns img in grey and enlarged.
func enlarge(img image.Image) *image.Gray {
	from := img.Bounds()
	grey := image.NewGray(from)
	draw.Draw(grey, from, img, from.Min, draw.Src)
	factor := min(enlargement, math.Sqrt(maxPixels/float64(max(1, from.Dx()*from.Dy()))))
	if factor <= 1 {
		return grey
	}
	// Scaling is ten times faster to this kind of picture than to grey.
	to := image.NewRGBA(image.Rect(0, 0, int(float64(from.Dx())*factor), int(float64(from.Dy())*factor)))
	draw.CatmullRom.Scale(to, to.Bounds(), grey, from, draw.Src, nil)
	large := image.NewGray(to.Bounds())
	for i := range large.Pix {
		large.Pix[i] = to.Pix[4*i]
	}
	return large
}

// stretch spreads the greys so that the darkest is black and the lightest is
// white, except for one pixel in a hundred at either end.
func stretch(img *image.Gray) {
	var count [256]int
	for _, p := range img.Pix {
		count[p]++
	}
	outliers := len(img.Pix) / 100
	edge := func(from, step int) int {
		at := from
		for sum := count[at]; sum <= outliers && 0 <= at+step && at+step < len(count); sum += count[at] {
			at += step
		}
		return at
	}
	dark, light := edge(0, 1), edge(255, -1)
	if dark >= light {
		return // all of one grey
	}
	for i, p := range img.Pix {
		img.Pix[i] = uint8(min(max((int(p)-dark)*255/(light-dark), 0), 255))
	}
}

// positive leaves black what is darker than a quarter, and nothing else.
func positive(img *image.Gray) *image.Gray {
	return mapped(img, func(p uint8) uint8 {
		if p < 64 {
			return 0
		}
		return 255
	})
}

// negative swaps dark and light.
func negative(img *image.Gray) *image.Gray {
	return mapped(img, func(p uint8) uint8 { return 255 - p })
}

func mapped(img *image.Gray, f func(uint8) uint8) *image.Gray {
	out := image.NewGray(img.Bounds())
	for i, p := range img.Pix {
		out.Pix[i] = f(p)
	}
	return out
}
