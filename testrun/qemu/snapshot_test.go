package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qmp"

	"vm-prebuild/testrun/machine"
)

// What a guest writes after it was saved it has not written when it is put back, and
// all that it has written before counts as that.
func TestConsoleRewind(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := newConsole()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.read(r, func(string) {})
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	write := func(text string) {
		t.Helper()
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := c.settle(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	find := func(line string) error {
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		return c.follow(ctx, func(lines []string, _ string) (int, error) {
			return slices.Index(lines, line) + 1, nil
		})
	}
	for i := range 1000 { // no matter when it is read
		write(fmt.Sprintln("early", i))
	}
	write("login: ")
	if err := find("early 500"); err != nil {
		t.Fatal(err)
	}
	saved := c.mark()
	before := c.lines()
	for range 3 {
		write("root\nlate\n")
		if err := find("late"); err != nil {
			t.Error(err)
		}
		if err := find("early 999"); err == nil {
			t.Error("a wait has found what is behind an earlier one")
		}
		following := make(chan error, 1)
		go func() { // begins before the rewinding, and ends after it
			following <- c.follow(ctx, func(lines []string, _ string) (int, error) {
				return slices.Index(lines, "early 501") + 1, nil
			})
		}()
		time.Sleep(5 * time.Millisecond)
		c.rewind(saved)
		if err := <-following; err != nil {
			t.Error(err)
		}
		c.rewind(saved)
		if after := c.lines(); !slices.Equal(before, after) {
			t.Fatalf("%q, want %q", after[len(after)-3:], before[len(before)-3:])
		}
		if err := find("late"); err == nil {
			t.Error("a wait has found what was not written")
		}
		if err := find("early 999"); err != nil {
			t.Error(err)
		}
		c.rewind(saved)
	}
	write("root\nlate\n")
	late := c.mark()
	c.rewind(saved)
	write("later\n")
	c.rewind(late) // forwards
	if lines := c.lines(); lines[len(lines)-1] != "late" || len(lines) != len(before)+1 {
		t.Errorf("the console ends in %q", lines[len(lines)-2:])
	}
	w.Close()
	<-ended
}

func TestUnsavable(t *testing.T) {
	if err := unsavable(nil); err != nil {
		t.Error(err)
	}
	err := unsavable([]string{"one\nhint: do this", "two"})
	var u *machine.UnsavableError
	if !errors.As(err, &u) || err.Error() != "it cannot be saved: two; one\nhint: do this" {
		t.Error(err)
	}
}

func TestOfOurJob(t *testing.T) {
	for id, want := range map[any]bool{"vm-prebuild-1": true, "backup": false, 1: false} {
		e := qmp.Event{Event: "JOB_STATUS_CHANGE", Data: map[string]any{"id": id}}
		if got := ofOurJob(e); got != want {
			t.Errorf("%v: %v", e, got)
		}
	}
	if ofOurJob(qmp.Event{Event: "STOP", Data: map[string]any{"id": "vm-prebuild-1"}}) {
		t.Error("another event")
	}
}
