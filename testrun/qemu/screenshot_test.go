package qemu

import (
	"image/color"
	"testing"
)

func TestDecodePPM(t *testing.T) {
	img, err := decodePPM([]byte("P6\n2 1\n255\n\n \x00\xff\x80\x01"))
	if err != nil {
		t.Fatal(err)
	}
	if b := img.Bounds(); b.Dx() != 2 || b.Dy() != 1 {
		t.Error(b)
	}
	if got, want := img.At(0, 0), (color.RGBA{'\n', ' ', 0, 255}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	if got, want := img.At(1, 0), (color.RGBA{255, 128, 1, 255}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
	for _, bad := range []string{"", "P6\n", "P5\n1 1\n255\nxxx", "P6\n1 1\n255\nxx", "P6\n0 1\n255\n", "P6\n-1 -1\n255\nxxx", "P6\n99999 99999\n255\nxxx", "P6\n1 1\n65535\nxxxxxx"} {
		if img, err := decodePPM([]byte(bad)); err == nil {
			t.Errorf("%q is a picture of %v", bad, img.Bounds())
		}
	}
}

func FuzzDecodePPM(f *testing.F) {
	f.Add([]byte("P6\n2 1\n255\nxxxxxx"))
	f.Add([]byte("P6\n16384 16384\n255\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := decodePPM(data)
		if err == nil && 3*img.Bounds().Dx()*img.Bounds().Dy() > len(data) {
			t.Errorf("%v of %d bytes", img.Bounds(), len(data))
		}
	})
}
