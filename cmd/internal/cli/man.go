package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// writeMan writes the tool's manual page (section 1) as roff with the man
// macros, see man(7).
func writeMan(w io.Writer, a App, model *kong.Application) {
	fmt.Fprintf(w, ".TH %s 1 \"\" vm-prebuild\n", strings.ToUpper(roff(a.Name)))
	fmt.Fprintf(w, ".SH NAME\n%s \\- %s\n", roff(a.Name), roff(firstSentence(a.Description)))
	fmt.Fprint(w, ".SH SYNOPSIS\n")
	leaves := model.Leaves(true)
	if len(leaves) == 0 {
		leaves = []*kong.Node{model.Node}
	}
	for _, n := range leaves {
		fmt.Fprintf(w, ".B %s\n%s\n.br\n", roff(n.FullPath()), roff(synopsis(n)))
	}
	fmt.Fprintf(w, ".SH DESCRIPTION\n%s\n", roff(a.Description))
	if len(model.Positional) > 0 {
		fmt.Fprint(w, ".SH ARGUMENTS\n")
		manArguments(w, model.Node)
	}
	fmt.Fprint(w, ".SH OPTIONS\n")
	manFlags(w, model.Node)
	if len(model.Children) > 0 {
		fmt.Fprint(w, ".SH COMMANDS\n")
	}
	for _, n := range model.Leaves(true) {
		fmt.Fprintf(w, ".SS %s\n%s\n", roff(n.FullPath()+" "+synopsis(n)), roff(n.Help))
		if n.Detail != "" {
			fmt.Fprintf(w, ".PP\n%s\n", roff(n.Detail))
		}
		manArguments(w, n)
		manFlags(w, n)
	}
	fmt.Fprint(w, ".SH EXIT STATUS\n")
	for _, s := range a.exitStatus() {
		fmt.Fprintf(w, ".TP\n.B %d\n%s\n", s.Code, roff(s.Meaning))
	}
	if len(a.Examples) > 0 {
		fmt.Fprint(w, ".SH EXAMPLES\n")
	}
	for _, e := range a.Examples {
		fmt.Fprintf(w, ".PP\n%s:\n.PP\n.nf\n.RS\n%s\n.RE\n.fi\n", roff(e.Text), roff(e.Command))
	}
}

func manArguments(w io.Writer, n *kong.Node) {
	for _, p := range n.Positional {
		fmt.Fprintf(w, ".TP\n.I %s\n%s\n", roff(p.Summary()), roff(p.Help))
	}
}

func manFlags(w io.Writer, n *kong.Node) {
	for _, f := range n.Flags {
		if !f.Hidden {
			fmt.Fprintf(w, ".TP\n.B %s\n%s\n", roff(f.String()), roff(kong.DefaultHelpValueFormatter(f.Value)))
		}
	}
}

// synopsis is what follows the name of a command.
func synopsis(n *kong.Node) string {
	parts := []string{"[options]"}
	for _, p := range n.Positional {
		parts = append(parts, p.Summary())
	}
	return strings.Join(parts, " ")
}

func firstSentence(s string) string {
	first, _, _ := strings.Cut(s, ". ")
	return strings.TrimSuffix(first, ".")
}

// roff escapes text: hyphens are to stay hyphens, and a line must not begin
// with a control character.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
