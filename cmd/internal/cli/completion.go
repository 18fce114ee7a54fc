package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// writeCompletion writes a static completion script. Commands and flags come
// from the model, and so do the values of enum flags; all else completes as file
// names. Commands are one level deep in all our tools.
func writeCompletion(w io.Writer, shell string, model *kong.Application) error {
	switch shell {
	case "bash":
		bashCompletion(w, model)
	case "zsh":
		zshCompletion(w, model)
	case "fish":
		fishCompletion(w, model)
	default:
		return fmt.Errorf("--completion: %q is none of bash, zsh and fish", shell)
	}
	return nil
}

func functionName(model *kong.Application) string {
	return "_" + strings.ReplaceAll(model.Name, "-", "_")
}

// visible are the flags that a user sees after the command n; after the tool's
// name alone, those of the default command are among them.
func visible(n *kong.Node) (flags []*kong.Flag) {
	if n.DefaultCmd != nil {
		n = n.DefaultCmd
	}
	for _, level := range n.AllFlags(true) {
		flags = append(flags, level...)
	}
	return flags
}

func flagWords(n *kong.Node) string {
	var words []string
	for _, f := range visible(n) {
		words = append(words, "--"+f.Name)
		if no := negation(f); no != "" {
			words = append(words, "--"+no)
		}
	}
	return strings.Join(words, " ")
}

// takesFiles says whether the tool's name may be followed by a file in place of
// a command.
func takesFiles(model *kong.Application) bool {
	return model.DefaultCmd != nil && len(model.DefaultCmd.Positional) > 0
}

// negation is the name of the flag that undoes f; "" when there is none.
func negation(f *kong.Flag) string {
	if f.Tag.Negatable == "_" { // kong's mark for the usual name
		return "no-" + f.Name
	}
	return f.Tag.Negatable
}

func bashCompletion(w io.Writer, model *kong.Application) {
	fmt.Fprintf(w, "%s() {\n  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n", functionName(model))
	fmt.Fprintf(w, "  local command=${COMP_WORDS[1]} flags commands=%q\n", strings.Join(commandNames(model), " "))
	fmt.Fprint(w, "  case $command:$prev in\n")
	nodes := append(model.Leaves(true), model.Node)
	for _, n := range nodes {
		flags := n.Flags
		if n == model.Node { // what matches any command comes last
			flags = visible(n)
		}
		for _, f := range flags {
			if values := enumValues(f.Value); len(values) > 0 {
				fmt.Fprintf(w, "    %s:--%s) COMPREPLY=($(compgen -W %q -- \"$cur\")); return ;;\n",
					pattern(model, n), f.Name, strings.Join(values, " "))
			}
		}
	}
	fmt.Fprint(w, "  esac\n  case $command in\n")
	for _, n := range model.Leaves(true) {
		fmt.Fprintf(w, "    %s) flags=%q ;;\n", n.Name, flagWords(n))
	}
	fmt.Fprintf(w, "    *) flags=%q ;;\n  esac\n", flagWords(model.Node))
	fmt.Fprint(w, "  if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W \"$flags\" -- \"$cur\"))\n")
	fmt.Fprint(w, "  elif [[ $COMP_CWORD == 1 && $commands ]]; then ")
	if takesFiles(model) {
		fmt.Fprint(w, "compopt -o filenames; COMPREPLY=($(compgen -W \"$commands\" -- \"$cur\") $(compgen -f -- \"$cur\"))\n")
	} else {
		fmt.Fprint(w, "COMPREPLY=($(compgen -W \"$commands\" -- \"$cur\"))\n")
	}
	fmt.Fprintf(w, "  else compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); fi\n}\ncomplete -F %s %s\n",
		functionName(model), model.Name)
}

// pattern matches the command word with which flags of n are valid.
func pattern(model *kong.Application, n *kong.Node) string {
	if n == model.Node {
		return "*"
	}
	return n.Name
}

func zshCompletion(w io.Writer, model *kong.Application) {
	fmt.Fprintf(w, "#compdef %s\n%s() {\n", model.Name, functionName(model))
	leaves := model.Leaves(true)
	if len(leaves) > 0 {
		fmt.Fprint(w, "  local -a commands=(\n")
		for _, n := range leaves {
			fmt.Fprintf(w, "    %s\n", quote(n.Name+":"+n.Help))
		}
		files := ""
		if takesFiles(model) {
			files = "; _files"
		}
		fmt.Fprintf(w, "  )\n  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then _describe command commands%s; return; fi\n", files)
		fmt.Fprint(w, "  local command=$words[2]\n  [[ $command == -* ]] || { shift words; (( CURRENT-- )); }\n  case $command in\n")
		for _, n := range leaves {
			fmt.Fprintf(w, "    %s) _arguments %s '*:file:_files' ;;\n", n.Name, zshFlags(n))
		}
		if files != "" {
			files = " '*:file:_files'"
		}
		fmt.Fprintf(w, "    *) _arguments %s%s ;;\n  esac\n", zshFlags(model.Node), files)
	} else {
		fmt.Fprintf(w, "  _arguments %s '*:file:_files'\n", zshFlags(model.Node))
	}
	fmt.Fprintf(w, "}\n%s \"$@\"\n", functionName(model))
}

func zshFlags(n *kong.Node) string {
	var words []string
	for _, f := range visible(n) {
		help := strings.NewReplacer("[", `\[`, "]", `\]`, ":", `\:`).Replace(f.Help)
		word := "--" + f.Name + "[" + help + "]"
		if values := enumValues(f.Value); len(values) > 0 {
			word += ":value:(" + strings.Join(values, " ") + ")"
		} else if !f.IsBool() {
			word += ":value:_files"
		}
		words = append(words, quote(word))
		if no := negation(f); no != "" {
			words = append(words, quote("--"+no+"[the opposite of --"+f.Name+"]"))
		}
	}
	return strings.Join(words, " ")
}

func fishCompletion(w io.Writer, model *kong.Application) {
	names := strings.Join(commandNames(model), " ")
	noFiles := " -f"
	if takesFiles(model) {
		noFiles = ""
	}
	for _, n := range model.Leaves(true) {
		fmt.Fprintf(w, "complete -c %s%s -n 'not __fish_seen_subcommand_from %s' -a %s -d %s\n",
			model.Name, noFiles, names, n.Name, quote(n.Help))
	}
	fishFlags(w, model, model.Node, "")
	if n := model.DefaultCmd; n != nil {
		fishFlags(w, model, n, " -n 'not __fish_seen_subcommand_from "+names+"'")
	}
	for _, n := range model.Leaves(true) {
		fishFlags(w, model, n, " -n '__fish_seen_subcommand_from "+n.Name+"'")
	}
}

func fishFlags(w io.Writer, model *kong.Application, n *kong.Node, condition string) {
	for _, f := range n.Flags {
		if f.Hidden {
			continue
		}
		fmt.Fprintf(w, "complete -c %s%s -l %s", model.Name, condition, f.Name)
		if f.Short != 0 {
			fmt.Fprintf(w, " -s %c", f.Short)
		}
		if values := enumValues(f.Value); len(values) > 0 {
			fmt.Fprintf(w, " -x -a %s", quote(strings.Join(values, " ")))
		} else if !f.IsBool() {
			fmt.Fprint(w, " -r")
		}
		fmt.Fprintf(w, " -d %s\n", quote(f.Help))
		if no := negation(f); no != "" {
			fmt.Fprintf(w, "complete -c %s%s -l %s -d %s\n", model.Name, condition, no, quote("The opposite of --"+f.Name))
		}
	}
}

func commandNames(model *kong.Application) (names []string) {
	for _, n := range model.Leaves(true) {
		names = append(names, n.Name)
	}
	return names
}

// enumValues are the values that v can take, nil when there is no list of them.
func enumValues(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return v.EnumSlice()
}

// quote makes s one word of a shell; fish reads an escaped quote as bash does.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
