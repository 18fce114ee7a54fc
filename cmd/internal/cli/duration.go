package cli

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
)

// Duration is the value of a flag that takes a time: seconds, "90" or "1.5", or
// what [time.ParseDuration] reads, "1m30s". It is never negative.
type Duration time.Duration

// Decode implements kong.MapperValue.
func (d *Duration) Decode(ctx *kong.DecodeContext) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	value, err := time.ParseDuration(text)
	if err != nil {
		seconds, err := strconv.ParseFloat(text, 64)
		// What is not a number is in no range.
		if err != nil || !(math.Abs(seconds) < math.MaxInt64/float64(time.Second)) {
			return fmt.Errorf("%q is no duration, such as 90 or 1.5 (seconds), 90s or 2m", text)
		}
		value = time.Duration(seconds * float64(time.Second))
	}
	if value < 0 {
		return fmt.Errorf("%s is negative", text)
	}
	*d = Duration(value)
	return nil
}
