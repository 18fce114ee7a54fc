package shell

import (
	"context"
	"fmt"
	"io"
	"strings"

	"vm-prebuild/testrun/machine"
)

// said begins the lines of a program that has the guest's console.
const said = "vmt-says "

// Sleep implements machine.Sleeper.
func (c *Conn) Sleep(ctx context.Context, program string) (string, error) {
	if err := c.acquire(ctx); err != nil {
		return "", err
	}
	defer c.release()
	return c.sleep(ctx, program)
}

// sleep is Sleep for who has the turn.
func (c *Conn) sleep(ctx context.Context, program string) (string, error) {
	if err := c.settle(ctx); err != nil {
		return "", err
	}
	if c.seen < c.sent {
		// A command that was given up still has the shell.
		if _, err := c.answer(ctx, c.sent, io.Discard); err != nil {
			return "", err
		}
	}
	return c.ask(ctx, program)
}

// Ask implements machine.Sleeper.
func (c *Conn) Ask(ctx context.Context, line string) (string, error) {
	if err := c.acquire(ctx); err != nil {
		return "", err
	}
	defer c.release()
	return c.ask(ctx, line)
}

func (c *Conn) ask(ctx context.Context, line string) (string, error) {
	if strings.Contains(line, "\n") {
		return "", fmt.Errorf("%q is more than one line", line)
	}
	if err := c.send(ctx, line+"\n"); err != nil {
		return "", err
	}
	for {
		f, err := c.frame(ctx)
		if err != nil {
			return "", err
		}
		if f.kind != frameLine {
			continue
		}
		if strings.Contains(f.text, Greeting) {
			c.greeted = true
			return "", errRebooted
		}
		// What others have written without a line end may stand before it.
		if _, answer, ok := strings.Cut(f.text, said); ok {
			return answer, nil
		}
	}
}

var _ machine.Sleeper = (*Conn)(nil)
