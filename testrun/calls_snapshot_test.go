package testrun

import (
	"testing"

	"vm-prebuild/testrun/script"
)

// What was saved for a block is of use to the next one of the same machines, unless
// the script has called anything in between.
func TestSpareRollback(t *testing.T) {
	var b rollbacks
	begin := func(names ...string) (int, *rollback) {
		r := &rollback{snapshot: b.name(), processes: map[string]int{}}
		for _, name := range names {
			r.processes[name] = 1
		}
		return b.begin(r), r
	}
	end := func(id int) {
		t.Helper()
		r, ok := b.end(id)
		if !ok {
			t.Fatalf("block %d is not open", id)
		}
		b.put(r)
	}
	fits := func(want bool, names ...string) {
		t.Helper()
		if _, got := b.take(names); got != want {
			t.Errorf("a spare for %q: %v, want %v", names, got, want)
		}
	}
	fits(false, "alpha")
	id, outer := begin("alpha", "beta")
	b.note(script.Request{Machine: "alpha", Method: "succeed"})
	fits(false, "alpha", "beta") // while it is open
	inner, _ := begin("alpha")
	end(inner)
	end(id)
	fits(false, "alpha") // what it was is undone, too
	b.note(script.Request{Method: "rollback_begin"})
	if spare, ok := b.take([]string{"alpha", "beta"}); !ok || spare != outer {
		t.Errorf("got %v, %v", spare, ok)
	}
	fits(false, "alpha", "beta") // there is one only
	b.put(outer)
	b.note(script.Request{Machine: "gamma", Method: "start"})
	if spare, ok := b.take([]string{"alpha", "beta"}); ok || spare != outer {
		t.Errorf("got %v, %v; want it to be dropped", spare, ok)
	}
	if _, ok := b.end(id); ok {
		t.Error("a block has ended twice")
	}
}
