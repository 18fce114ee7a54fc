package machine

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Run runs one command to its end and returns its exit status and what it
// wrote, standard error apart. A zero timeout means that only ctx limits it; a
// command that takes longer ends with status 124.
func (g *Guest) Run(ctx context.Context, command string, timeout time.Duration) (Result, error) {
	return g.run(ctx, command, timeout)
}

// Parallel runs all commands at once in the guest and returns how each ended,
// in their order. Each is a bash of its own that reads from /dev/null and may
// take timeout, after which it ends with status 124; zero means that only ctx
// limits it. What a command leaves in the background is not waited for.
func (g *Guest) Parallel(ctx context.Context, commands []string, timeout time.Duration) (results []Result, err error) {
	if len(commands) == 0 {
		return nil, nil
	}
	err = g.nested("running at once: "+strings.Join(commands, "; "), func() error {
		limit := timeout
		if limit > 0 {
			limit += parallelGrace
		}
		all, err := g.Run(ctx, parallelScript(commands, timeout), limit)
		if err != nil {
			return err
		}
		if all.Status != 0 {
			return Errorf(g.Machine.Name(), "running %d commands at once failed with exit code %d: %s",
				len(commands), all.Status, bytes.TrimSpace(all.Stderr))
		}
		results, err = parseParallel(all.Stdout, len(commands))
		if err != nil {
			return Errorf(g.Machine.Name(), "running %d commands at once: %w", len(commands), err)
		}
		return nil
	})
	return results, err
}

// parallelGrace is how long beyond the commands' time-out their results may
// take to be collected.
const parallelGrace = 30 * time.Second

// parallelScript runs the commands with their outputs in files, so that none
// waits for another's reader, and prints for each a line "STATUS STDOUT-BYTES
// STDERR-BYTES" and then those bytes.
func parallelScript(commands []string, timeout time.Duration) string {
	var b strings.Builder
	b.WriteString("set +e\ndir=$(mktemp -d) || exit\ntrap 'rm -rf \"$dir\"' EXIT\npids=()\n")
	limit := ""
	if timeout > 0 {
		limit = "timeout " + strconv.FormatFloat(timeout.Seconds(), 'f', -1, 64) + " "
	}
	for i, command := range commands {
		fmt.Fprintf(&b, "%sbash -c %s </dev/null >\"$dir/%d.out\" 2>\"$dir/%d.err\" & pids+=($!)\n",
			limit, Quote("set -euo pipefail; "+command), i, i)
	}
	b.WriteString(`for i in "${!pids[@]}"; do
  wait "${pids[i]}"; status=$?
  out=$(wc -c <"$dir/$i.out") err=$(wc -c <"$dir/$i.err")
  echo $status $out $err
  head -c $out "$dir/$i.out"; head -c $err "$dir/$i.err"
done
exit 0`)
	return b.String()
}

// parseParallel reads what parallelScript prints.
func parseParallel(text []byte, commands int) ([]Result, error) {
	results := make([]Result, commands)
	for i := range results {
		head, rest, ok := bytes.Cut(text, []byte{'\n'})
		fields := strings.Fields(string(head))
		var numbers [3]int
		ok = ok && len(fields) == len(numbers)
		for k := 0; ok && k < len(numbers); k++ {
			n, err := strconv.Atoi(fields[k])
			numbers[k], ok = n, err == nil && n >= 0 && (k == 0 || n <= len(rest))
		}
		status, out, errs := numbers[0], numbers[1], numbers[2]
		if !ok || out > len(rest)-errs {
			return nil, fmt.Errorf("malformed result of command %d: %.100q", i+1, head)
		}
		results[i] = Result{Status: status, Stdout: rest[:out:out], Stderr: rest[out : out+errs : out+errs]}
		text = rest[out+errs:]
	}
	if len(text) > 0 {
		return nil, fmt.Errorf("%d bytes behind the last result", len(text))
	}
	return results, nil
}
