package cli

import "github.com/alecthomas/kong"

// standardFlags are those of every tool, beside --help. A command's help leaves
// them to the tool's.
type standardFlags struct {
	Man        manFlag        `name:"man" help:"Print the manual page."`
	Completion completionFlag `name:"completion" placeholder:"SHELL" help:"Print completions for bash, zsh or fish."`
}

// manFlag acts as --help does: whatever else the command line has, which may be
// from a wrapper, and before anything is found missing from it.
type manFlag bool

// BeforeReset implements kong's hook.
func (manFlag) BeforeReset(ctx *kong.Context, a *App, out *IO) error {
	writeMan(out.Stdout, *a, ctx.Model)
	ctx.Exit(ExitOK)
	return nil
}

type completionFlag string

// BeforeReset implements kong's hook.
func (completionFlag) BeforeReset(ctx *kong.Context, path *kong.Path, out *IO) error {
	shell, _ := ctx.FlagValue(path.Flag).(completionFlag)
	if err := writeCompletion(out.Stdout, string(shell), ctx.Model); err != nil {
		return err
	}
	ctx.Exit(ExitOK)
	return nil
}

func hideStandardFlags(model *kong.Application) {
	for _, f := range model.Flags {
		switch f.Target.Interface().(type) {
		case manFlag, completionFlag:
			f.Hidden = true
		}
	}
}
