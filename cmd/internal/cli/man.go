package cli

import (
	"fmt"
	"io"
	"slices"
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
		fmt.Fprintf(w, ".B %s\n%s\n.br\n", roff(commandLine(n)), roff(synopsis(n)))
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
		fmt.Fprintf(w, ".SS %s\n%s\n", roff(commandLine(n)+" "+synopsis(n)), roff(n.Help))
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
	manExamples(w, a.Examples)
	for _, n := range model.Leaves(true) {
		manExamples(w, slices.DeleteFunc(examplesOf(n), func(e Example) bool { return slices.Contains(a.Examples, e) }))
	}
}

func manExamples(w io.Writer, examples []Example) {
	for _, e := range examples {
		fmt.Fprintf(w, ".PP\n%s:\n.PP\n.nf\n.RS\n%s\n.RE\n.fi\n", roff(e.Text), roff(e.Command))
	}
}

// flagSummary is kong's, with the negation that kong shows in its help only.
func flagSummary(f *kong.Flag) string {
	if no := negation(f); no != "" {
		return f.String() + ", --" + no
	}
	return f.String()
}

func manArguments(w io.Writer, n *kong.Node) {
	for _, p := range n.Positional {
		fmt.Fprintf(w, ".TP\n.I %s\n%s\n", roff(p.Summary()), roff(p.Help))
	}
}

func manFlags(w io.Writer, n *kong.Node) {
	group := ""
	for _, f := range n.Flags {
		if !f.Hidden {
			if f.Group != nil && f.Group.Key != group {
				group = f.Group.Key
				fmt.Fprintf(w, ".PP\n%s\n", roff(f.Group.Title))
			}
			fmt.Fprintf(w, ".TP\n.B %s\n%s\n", roff(flagSummary(f)), roff(kong.DefaultHelpValueFormatter(f.Value)))
		}
	}
}

// commandLine is how a command is called. The default command needs no name.
func commandLine(n *kong.Node) string {
	if n.Parent != nil && n.Parent.DefaultCmd == n {
		return n.Parent.FullPath() + " [" + n.Name + "]"
	}
	return n.FullPath()
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
