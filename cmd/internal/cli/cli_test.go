package cli_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"vm-prebuild/cmd/internal/cli"
)

var update = flag.Bool("update", false, "rewrite the golden files")

type grammar struct {
	Verbose bool      `help:"Say more." short:"v"`
	Plan    planCmd   `cmd:"" help:"Say what would be built."`
	Import  importCmd `cmd:"" help:"Bring a closure into a store."`
}

type planCmd struct {
	JSON  bool   `help:"Print JSON." name:"json"`
	Color string `enum:"auto,always,never" default:"auto" help:"When to use colours: it's [${enum}]."`
	What  string `arg:"" optional:"" help:"What to plan."`
	Depth int    `hidden:""`
}

func (c *planCmd) Run(ctx context.Context, out *cli.IO) error {
	switch c.What {
	case "failed":
		return cli.WithExitCode(cli.ExitFailed, errors.New("1 of 2 tests failed"))
	case "child":
		return fmt.Errorf("nix failed: %w", exec.CommandContext(ctx, "sh", "-c", "exit 7").Run())
	case "hint":
		return errors.New("no such thing\nhint: make one")
	case "wait":
		fmt.Fprintln(out.Stdout, "ready")
		<-ctx.Done()
		return ctx.Err()
	}
	return out.JSON(map[string]string{"what": c.What})
}

type importCmd struct {
	Store string   `required:"" placeholder:"ROOT" env:"STORE" help:"Store to write."`
	Paths []string `arg:"" help:"What to import."`
}

func (c *importCmd) Help() string {
	return "Files are placed in parallel.\n\nThen they are registered."
}
func (c *importCmd) Run() error { return nil }

func (c *importCmd) Examples() []cli.Example {
	return []cli.Example{
		{Text: "Import two closures", Command: "tool import --store /mnt ./a ./b"},
		{Text: "Import a closure", Command: "tool import --store /mnt ./result"}, // one of the tool's, too
	}
}

// defaulted is a tool with a command that is meant when none is given.
type defaulted struct {
	Get getCmd `cmd:"" default:"withargs" help:"Get a thing."`
	Put putCmd `cmd:"" help:"Put a thing."`
}

type getCmd struct {
	How  string `enum:"fast,slow" default:"fast" help:"How to get it: ${enum}."`
	File string `arg:"" optional:"" help:"Where to put it."`
}

func (c *getCmd) Run(out *cli.IO) error {
	fmt.Fprintln(out.Stdout, "get", c.How)
	return nil
}

type putCmd struct {
	How string `enum:"up,down" default:"up" help:"How to put it: ${enum}."`
}

func (c *putCmd) Run() error { return fmt.Errorf("put: %w", cli.Exit(42)) }

type single struct {
	Colour bool   `negatable:"" default:"true" help:"Use colours."`
	Jobs   int    `help:"Tests at once." default:"1"`
	Path   string `arg:"" help:"The file."`
}

func (s *single) Run(out *cli.IO) error {
	_, err := fmt.Fprintln(out.Stdout, s.Path, s.Jobs)
	return err
}

var app = cli.App{
	Name:        "tool",
	Description: "Does things with closures. It's small.",
	Examples: []cli.Example{
		{Text: "Plan what is below the current directory", Command: "tool plan ."},
		{Text: "Import a closure", Command: "tool import --store /mnt ./result"},
	},
}

func run(ctx context.Context, grammar any, args ...string) (code int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	code = app.Run(ctx, grammar, args, &cli.IO{Stdout: &out, Stderr: &errOut})
	return code, out.String(), errOut.String()
}

func TestRun(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"ok", "plan x", 0, "{\n  \"what\": \"x\"\n}\n", ""},
		{"unknown flag", "--nope", 2, "", "tool: unknown flag --nope\nhint: run 'tool --help'\n"},
		{"unknown flag of a command", "plan --nope", 2, "", "tool: unknown flag --nope\nhint: run 'tool plan --help'\n"},
		{"flag without value", "plan --color", 2, "", "tool: --color: the value is missing\nhint: run 'tool plan --help'\n"},
		{"words for a number", "plan --depth=deep", 2, "", "tool: --depth: expected a whole number but got \"deep\"\nhint: run 'tool plan --help'\n"},
		{"no command", "", 2, "", "tool: expected one of \"plan\", \"import\"\nhint: run 'tool --help'\n"},
		{"missing flag", "import x", 2, "", "tool: missing flags: --store=ROOT\nhint: run 'tool import --help'\n"},
		{"failed", "plan failed", 1, "", "tool: 1 of 2 tests failed\n"},
		{"exit code of a child", "plan child", 3, "", "tool: nix failed: exit status 7\n"},
		{"hint", "plan hint", 3, "", "tool: no such thing\nhint: make one\n"},
		{"completion", "--completion=csh", 2, "", "tool: --completion: \"csh\" is none of bash, zsh and fish\nhint: run 'tool --help'\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := run(t.Context(), &grammar{}, strings.Fields(tt.args)...)
			if code != tt.code || stdout != tt.stdout || stderr != tt.stderr {
				t.Errorf("exit %d\nstdout: %s\nstderr: %s\nwant exit %d\nstdout: %s\nstderr: %s",
					code, stdout, stderr, tt.code, tt.stdout, tt.stderr)
			}
		})
	}
}

func TestRewrite(t *testing.T) {
	var out, errOut bytes.Buffer
	shout := app
	shout.Rewrite = func(model *kong.Application, args []string) ([]string, error) {
		if args[0] == "" {
			return nil, errors.New("nothing to shout")
		}
		return append([]string{model.Children[0].Name}, strings.ToUpper(args[0])), nil
	}
	code := shout.Run(t.Context(), &grammar{}, []string{"x"}, &cli.IO{Stdout: &out, Stderr: &errOut})
	if code != 0 || !strings.Contains(out.String(), `"X"`) {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out.String(), errOut.String())
	}
	code = shout.Run(t.Context(), &grammar{}, []string{""}, &cli.IO{Stdout: &out, Stderr: &errOut})
	if code != 2 || errOut.String() != "tool: nothing to shout\nhint: run 'tool --help'\n" {
		t.Errorf("exit %d, stderr %q", code, errOut.String())
	}
}

func TestRunWithoutCommands(t *testing.T) {
	code, stdout, stderr := run(t.Context(), &single{}, "--jobs=3", "file")
	if code != 0 || stdout != "file 3\n" || stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestDefaultCommand(t *testing.T) {
	for _, tt := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"", 0, "get fast\n", ""},
		{"--how=slow", 0, "get slow\n", ""},
		{"get --how=slow", 0, "get slow\n", ""},
		{"put --how=down", 42, "", ""}, // the exit code of a child, which has said all itself
		{"put --how=slow", 2, "", "tool: --how must be one of \"up\",\"down\" but got \"slow\"\nhint: run 'tool put --help'\n"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			code, stdout, stderr := run(t.Context(), &defaulted{}, strings.Fields(tt.args)...)
			if code != tt.code || stdout != tt.stdout || stderr != tt.stderr {
				t.Errorf("exit %d\nstdout: %s\nstderr: %s\nwant exit %d\nstdout: %s\nstderr: %s",
					code, stdout, stderr, tt.code, tt.stdout, tt.stderr)
			}
		})
	}
}

func TestHelpManCompletion(t *testing.T) {
	t.Setenv("COLUMNS", "80")
	for _, tt := range []struct {
		golden  string
		grammar any
		args    []string
	}{
		{"help", &grammar{}, []string{"--help"}},
		{"help-import", &grammar{}, []string{"import", "--help"}},
		{"man", &grammar{}, []string{"--man"}},
		{"man-single", &single{}, []string{"--man"}},
		{"bash", &grammar{}, []string{"--completion", "bash"}},
		{"zsh", &grammar{}, []string{"--completion=zsh"}},
		{"zsh-single", &single{}, []string{"--completion=zsh"}},
		{"fish", &grammar{}, []string{"--completion", "fish"}},
		{"help-default", &defaulted{}, []string{"--help"}},
		{"man-default", &defaulted{}, []string{"--man"}},
		{"bash-default", &defaulted{}, []string{"--completion=bash"}},
		{"zsh-default", &defaulted{}, []string{"--completion=zsh"}},
		{"fish-default", &defaulted{}, []string{"--completion=fish"}},
	} {
		t.Run(tt.golden, func(t *testing.T) {
			code, stdout, stderr := run(t.Context(), tt.grammar, tt.args...)
			if code != 0 || stderr != "" {
				t.Fatalf("exit %d, stderr %q", code, stderr)
			}
			file := filepath.Join("testdata", tt.golden+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(stdout), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), stdout); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A wrapper puts flags of its own in front, and knows no command.
func TestManBehindOtherFlags(t *testing.T) {
	for _, flag := range []string{"--man", "--completion=bash"} {
		_, want, _ := run(t.Context(), &grammar{}, flag)
		for _, args := range []string{"-v", "import", "-v plan --color always x"} {
			code, stdout, stderr := run(t.Context(), &grammar{}, append(strings.Fields(args), flag)...)
			if code != 0 || stdout != want || stderr != "" {
				t.Errorf("%s %s: exit %d, stderr %q, stdout %s", args, flag, code, stderr, cmp.Diff(want, stdout))
			}
		}
	}
}

// TestBashCompletes lets a real bash load the script and complete words.
func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for _, tt := range []struct {
		grammar     any
		words, want string
	}{
		{&grammar{}, "tool p", "plan"},
		{&grammar{}, "tool plan --j", "--json"},
		{&grammar{}, "tool plan --color al", "always"},
		{&grammar{}, "tool import --s", "--store"},
		{&grammar{}, "tool plan ./testdata/", ""},
		{&defaulted{}, "tool --ho", "--how"},
		{&defaulted{}, "tool pu", "put"},
		{&defaulted{}, "tool ./testdata/", ""},
		{&defaulted{}, "tool --how s", "slow"},
		{&defaulted{}, "tool get --how s", "slow"},
		{&defaulted{}, "tool put --how d", "down"},
	} {
		words, want := tt.words, tt.want
		_, script, _ := run(t.Context(), tt.grammar, "--completion=bash")
		fields := strings.Fields(words)
		test := fmt.Sprintf("compopt() { :; }\n%s\nCOMP_WORDS=(%s); COMP_CWORD=%d; _tool; echo \"${COMPREPLY[*]}\"",
			script, words, len(fields)-1)
		out, err := exec.CommandContext(t.Context(), bash, "--norc", "-c", test).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got := strings.TrimSpace(string(out))
		if want == "" && strings.Contains(got, "testdata/help.golden") {
			continue
		}
		if got != want {
			t.Errorf("%q completes to %q, want %q", words, got, want)
		}
	}
}
