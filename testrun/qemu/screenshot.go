package qemu

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
)

// Screenshot implements machine.Screenshotter. The picture is made a PNG here:
// a QEMU that can do that needs libpng, and the one that nixpkgs builds for
// tests has none.
func (m *Machine) Screenshot(ctx context.Context, file string) error {
	return m.ask(ctx, "screenshot", func(ctx context.Context, p *process) error {
		// QEMU may run under another working directory or mount namespace, but
		// its state directory is surely one that it can write to.
		dir, err := os.MkdirTemp(m.Dirs().State, "screenshot-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		dump := filepath.Join(dir, "screen.ppm")
		if err := p.monitor.Screendump(ctx, dump, ""); err != nil {
			return err
		}
		data, err := os.ReadFile(dump)
		if err != nil {
			return err
		}
		img, err := decodePPM(data)
		if err != nil {
			return err
		}
		var encoded bytes.Buffer
		if err := png.Encode(&encoded, img); err != nil {
			return err
		}
		return writeFile(file, encoded.Bytes())
	})
}

// maxSide is more pixels in a row or column than any screen has.
const maxSide = 1 << 14

// decodePPM decodes a picture as QEMU's screendump writes it: the header "P6",
// width, height and 255, a line feed behind each line of it, and three bytes
// for each pixel (Netpbm's ppm(5)).
func decodePPM(data []byte) (image.Image, error) {
	const layout = "P6\n%d %d\n255\n"
	var width, height int
	if _, err := fmt.Sscanf(string(data[:min(len(data), 64)]), layout, &width, &height); err != nil {
		return nil, fmt.Errorf("not a PPM picture: %w", err)
	}
	if width <= 0 || height <= 0 || width > maxSide || height > maxSide {
		return nil, fmt.Errorf("PPM picture of %d by %d pixels", width, height)
	}
	body, ok := bytes.CutPrefix(data, fmt.Appendf(nil, layout, width, height))
	if !ok || len(body) != 3*width*height {
		return nil, fmt.Errorf("PPM picture of %d by %d pixels in %d bytes", width, height, len(data))
	}
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		copy(img.Pix[4*i:], body[3*i:3*i+3])
		img.Pix[4*i+3] = 0xff
	}
	return img, nil
}
