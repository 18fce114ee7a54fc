package cli

import (
	"encoding/json"
	"io"
	"os"

	"golang.org/x/term"
)

// IO is where a command writes. Results go to Stdout, all the rest to Stderr.
// A command gets it by naming *cli.IO among the parameters of its Run method.
type IO struct{ Stdout, Stderr io.Writer }

// JSON prints v as a result, indented.
func (o *IO) JSON(v any) error {
	enc := json.NewEncoder(o.Stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Width returns a function that says how many columns the terminal behind
// Stderr has now; nil when Stderr is no terminal that could rewrite a line.
func (o *IO) Width() func() int {
	f, ok := o.Stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil || width <= 0 { // a terminal may not know its size
			return 80
		}
		return width
	}
}
