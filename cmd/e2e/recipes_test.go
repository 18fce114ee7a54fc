package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// recipes is where the recipes for CI systems are.
const recipes = top + "/examples/ci"

// ciProject makes a flake of the template with two tests that nobody has built yet,
// whose inputs are this tree and nix/offline.
func ciProject(t *testing.T) string {
	t.Helper()
	source, dir := tree(t), t.TempDir()
	nixOutput(t, dir, "nix", "flake", "init", "-t", "path:"+source)
	edit(t, filepath.Join(dir, "flake.nix"),
		"github:nixos/nixpkgs/nixos-unstable", "path:"+source+"/nix/offline",
		"github:OWNER/vm-prebuild", "path:"+source,
		"hello = ./tests/hello.nix;", "hello = ./tests/hello.nix; again = ./tests/hello.nix;")
	edit(t, filepath.Join(dir, "tests/hello.nix"),
		"testScript = ''", fmt.Sprintf("testScript = ''\n    # %d", time.Now().UnixNano()))
	// A repository: what jobs leave in it is no part of the flake.
	nixOutput(t, dir, "nix", "flake", "lock")
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=CI", "-c", "user.email=", "commit", "-q", "-m", "Tests"}} {
		if out, err := command(t, dir, "git", args...); err != nil {
			t.Fatal(out, err)
		}
	}
	return dir
}

// edit replaces strings in a file, each of which must be there.
func edit(t *testing.T, file string, oldnew ...string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(string(text), oldnew[i]) {
			t.Fatalf("%s has no %q", file, oldnew[i])
		}
	}
	if err := os.WriteFile(file, []byte(strings.NewReplacer(oldnew...).Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(recipes, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatal(file, err)
	}
}

// ciMachine is a machine that runs the commands of CI jobs in dir.
type ciMachine struct {
	dir string
	env []string
	// Directory that is its /nix if it has no Nix on its PATH, as machines of shards
	// have; empty for this machine's.
	nix string
}

// emptyNix is the /nix of a machine that has none.
func emptyNix(t *testing.T) string {
	dir := t.TempDir()
	removable(t, dir)
	return dir
}

// run runs a job's commands as CI systems do, and returns what they print.
func (m ciMachine) run(t *testing.T, script string) string {
	t.Helper()
	bin := t.TempDir()
	for name, text := range map[string]string{
		"sudo": "exec \"$@\"",
		"nix":  "echo 'there is no Nix on this machine' >&2; exit 127",
	} {
		if name == "nix" && m.nix == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// In a mount namespace, where it can be done: mounts go when its last process does.
	begin := "unset " + manifestEnv + "\nif [ -e /dev/kvm ]; then cp -a /dev/kvm " + bin + "/kvm; mount --bind " + bin + "/kvm /dev/kvm; fi\n"
	if m.nix != "" {
		begin += "mount --bind " + m.nix + " /nix\n"
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "bash", "--noprofile", "--norc", "-euo", "pipefail", "-c", begin+script)
	cmd.Dir = m.dir
	cmd.Env = append(append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH")), m.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return string(out)
}

// copyDir copies what is in a directory, as the caches and artifacts of CI systems
// do; with modes or, as GitHub's artifacts, without.
func copyDir(t *testing.T, from, to string, modes bool) {
	t.Helper()
	script := `mkdir -p "$2" && cp -r "$1/." "$2"`
	if !modes {
		script += ` && find "$2" -type f -exec chmod 644 {} +`
	}
	if out, err := command(t, ".", "sh", "-c", script, "sh", from, to); err != nil {
		t.Fatal(out, err)
	}
}

// github is a workflow of GitHub Actions, as far as ours goes.
type github struct {
	Jobs map[string]struct {
		Needs    any // one or several
		Outputs  map[string]string
		Strategy struct{ Matrix string }
		Steps    []struct {
			ID, Name, Uses, Run, If string
			With, Env               map[string]string
		}
	}
}

var githubExpression = regexp.MustCompile(`\$\{\{ (.*?) \}\}`)

// TestGitHubActions runs the workflow's commands, job by job, on machines as GitHub
// has them; and again, as the next run of the workflow does.
func TestGitHubActions(t *testing.T) {
	need(t, manifestEnv)
	var workflow github
	readYAML(t, "github-actions.yml", &workflow)
	project, cache := ciProject(t), filepath.Join(t.TempDir(), "cache")
	artifacts, output := t.TempDir(), filepath.Join(t.TempDir(), "output")

	// job runs a job in dir, where GitHub's expressions have these values, with /nix
	// as ciMachine has it.
	job := func(name, dir string, values map[string]string, nix string) string {
		t.Helper()
		var log strings.Builder
		expand := func(text string) string {
			return githubExpression.ReplaceAllStringFunc(text, func(expression string) string {
				value, ok := values[githubExpression.FindStringSubmatch(expression)[1]]
				if !ok {
					t.Fatalf("nothing tells the value of %s", expression)
				}
				return value
			})
		}
		for _, step := range workflow.Jobs[name].Steps {
			path := filepath.Join(dir, step.With["path"])
			if step.Run != "" {
				m := ciMachine{dir: dir, nix: nix, env: []string{"GITHUB_OUTPUT=" + output, "GITHUB_RUN_ID=" + values["github.run_id"]}}
				for variable, value := range step.Env {
					m.env = append(m.env, variable+"="+expand(value))
				}
				log.WriteString(m.run(t, step.Run))
				continue
			}
			action, _, _ := strings.Cut(step.Uses, "@")
			switch action {
			case "actions/checkout", "cachix/install-nix-action":
			case "actions/cache/restore":
				expand(step.With["key"])
				if _, err := os.Stat(cache); err == nil {
					copyDir(t, cache, path, true)
				}
			case "actions/cache/save":
				expand(step.With["key"])
				copyDir(t, path, cache, true)
			case "actions/upload-artifact":
				copyDir(t, path, filepath.Join(artifacts, expand(step.With["name"])), true)
			case "actions/download-artifact":
				if pattern := step.With["pattern"]; pattern != "" {
					found, err := filepath.Glob(filepath.Join(artifacts, pattern))
					if err != nil {
						t.Fatal(err)
					}
					for _, artifact := range found {
						copyDir(t, artifact, filepath.Join(path, filepath.Base(artifact)), false)
					}
				} else {
					copyDir(t, filepath.Join(artifacts, step.With["name"]), path, false)
				}
			default:
				t.Fatalf("the test does not know %q", step.Uses)
			}
		}
		return log.String()
	}

	for _, run := range []string{"1", "2"} {
		values := map[string]string{"github.run_id": run}
		log := job("prebuild", project, values, "")
		if run == "2" && !strings.Contains(log, "nothing to do: all ") {
			t.Errorf("the second run did not start from what the first left:\n%s", log)
		}
		outputs, err := os.ReadFile(output)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(outputs)), "\n")
		text, ok := strings.CutPrefix(lines[len(lines)-1], "matrix=")
		if !ok || workflow.Jobs["prebuild"].Outputs["matrix"] != "${{ steps.plan.outputs.matrix }}" ||
			workflow.Jobs["test"].Strategy.Matrix != "${{ fromJSON(needs.prebuild.outputs.matrix) }}" {
			t.Fatalf("no matrix comes from the job: %s", outputs)
		}
		var matrix struct{ Include []map[string]any }
		if err := json.Unmarshal([]byte(text), &matrix); err != nil {
			t.Fatal(err, text)
		}
		if len(matrix.Include) != 2 {
			t.Fatalf("two tests in %d shards: %s", len(matrix.Include), text)
		}
		for _, include := range matrix.Include {
			if known := include["seconds"] != 0.0; known != (run == "2") {
				t.Errorf("run %s has the shard %v", run, include)
			}
			shard := maps.Clone(values)
			for name, value := range include {
				shard["matrix."+name] = fmt.Sprint(value)
			}
			if log := job("test", t.TempDir(), shard, emptyNix(t)); !strings.Contains(log, "1 passed") {
				t.Errorf("shard %v:\n%s", include, log)
			}
		}
		job("remember", t.TempDir(), values, emptyNix(t))
	}
	// What the second run began with, and the third will.
	for _, name := range []string{"vm-prebuild", "tests.bundle", "tests.path", "durations/1-results-1.xml", "durations/2-results-2.xml"} {
		if _, err := os.Stat(filepath.Join(cache, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestGitLabCI does the same with GitLab's.
func TestGitLabCI(t *testing.T) {
	need(t, manifestEnv)
	type job struct {
		Stage     string
		Parallel  int
		Script    []string
		Variables map[string]string
		Artifacts struct{ Paths []string }
	}
	var file struct {
		Stages                   []string
		Prebuild, Test, Remember job
	}
	readYAML(t, "gitlab-ci.yml", &file)
	if want := []string{file.Prebuild.Stage, file.Test.Stage, file.Remember.Stage}; !slices.Equal(file.Stages, want) {
		t.Errorf("stages %v, jobs in %v", file.Stages, want)
	}
	run := func(j job, m ciMachine) string { t.Helper(); return m.run(t, strings.Join(j.Script, "\n")) }

	// The cache and the artifacts of a job are what the next one begins with: they
	// keep their modes.
	prebuild, remember := ciProject(t), t.TempDir()
	run(file.Prebuild, ciMachine{dir: prebuild})
	// There are as many shards as jobs, some of them empty, as here two of four.
	passed := 0
	for i := range file.Test.Parallel {
		dir := t.TempDir()
		copyDir(t, filepath.Join(prebuild, "vm-cache"), filepath.Join(dir, "vm-cache"), true)
		log := run(file.Test, ciMachine{dir: dir, nix: emptyNix(t), env: []string{
			fmt.Sprintf("CI_NODE_INDEX=%d", i+1), fmt.Sprintf("CI_NODE_TOTAL=%d", file.Test.Parallel)}})
		passed += strings.Count(log, "1 passed")
		copyDir(t, dir, remember, true)
	}
	if passed != 2 {
		t.Errorf("%d tests passed", passed)
	}
	run(file.Remember, ciMachine{dir: remember, env: []string{"CI_PIPELINE_ID=1"}})
	if reports, err := filepath.Glob(filepath.Join(remember, "vm-cache/durations/*.xml")); err != nil || len(reports) != file.Test.Parallel {
		t.Error(reports, err)
	}
	copyDir(t, filepath.Join(remember, "vm-cache"), filepath.Join(prebuild, "vm-cache"), true)
	if log := run(file.Prebuild, ciMachine{dir: prebuild}); !strings.Contains(log, "nothing to do: all ") {
		t.Errorf("the second run did not start from what the first left:\n%s", log)
	}
}

// TestHydra evaluates the jobs as Hydra does, builds one with the hook, and fills
// a store from the cache that the hook has written.
func TestHydra(t *testing.T) {
	need(t, manifestEnv)
	source, project, dir := tree(t), ciProject(t), t.TempDir()
	jobs := filepath.Join(project, "hydra/jobs.nix")
	copyDir(t, filepath.Join(recipes, "hydra"), filepath.Dir(jobs), true)

	// The jobset has the inputs that the expression asks for.
	var spec struct {
		NixExprInput string                     `json:"nixexprinput"`
		NixExprPath  string                     `json:"nixexprpath"`
		Inputs       map[string]json.RawMessage `json:"inputs"`
	}
	text, err := os.ReadFile(filepath.Join(project, "hydra/spec.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	if spec.NixExprInput != "src" || filepath.Join(project, spec.NixExprPath) != jobs {
		t.Errorf("%+v", spec)
	}
	var optional map[string]bool
	arguments := nixOutput(t, dir, "nix", "eval", "--json", "--file", jobs, "--apply", "builtins.functionArgs")
	if err := json.Unmarshal([]byte(arguments), &optional); err != nil {
		t.Fatal(err)
	}
	for name, isOptional := range optional {
		if spec.Inputs[name] == nil && !isOptional {
			t.Errorf("%s has no input %s", "spec.json", name)
		}
	}
	for name := range spec.Inputs {
		if _, ok := optional[name]; !ok {
			t.Errorf("jobs.nix has no argument %s", name)
		}
	}

	cache, key := filepath.Join(dir, "cache"), filepath.Join(dir, "key")
	nixOutput(t, dir, "nix-store", "--generate-binary-cache-key", "test-1", key, key+".pub")
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	hook := filepath.Join(project, "hydra/post-build-hook.sh")
	edit(t, hook, "/srv/vm-cache", cache, "/etc/nix/vm-cache.secret", key, "exec vm-prebuild", "exec "+tool(t, "vm-prebuild"))
	if err := os.Chmod(hook, 0o700); err != nil {
		t.Fatal(err)
	}
	inputs := []string{"--arg", "nixpkgs", source + "/nix/offline", "--arg", "vm-prebuild", source, "--arg", "src", project}
	built := nixOutput(t, dir, "nix-build", append([]string{jobs, "-A", "hello", "--no-out-link", "--option", "post-build-hook", hook}, inputs...)...)

	fill, store := filepath.Join(project, "hydra/fill-builder.sh"), filepath.Join(dir, "store")
	removable(t, dir)
	edit(t, fill, "https://cache.example.org ", "file://"+cache+" ", "cache.example.org-1:…", strings.TrimSpace(string(public)),
		"exec vm-prebuild", "exec "+tool(t, "vm-prebuild"), "--store /", "--store "+store)
	if out, err := command(t, dir, "sh", fill, built); err != nil {
		t.Fatal(out, err)
	}
	for _, path := range []string{filepath.Join(store, built, "nix-support/hydra-build-products"), filepath.Join(store, built, "report.html")} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	verifyStore(t, store)
}
