package starlark

import (
	"fmt"

	"go.starlark.net/starlark"

	"vm-prebuild/testrun/event"
)

// rollback calls f and then undoes what that has done to machines: to those of the
// given names, or to all that run when it begins.
func (r *runtime) rollback(thread *starlark.Thread, machines []string, f func() (starlark.Value, error)) (starlark.Value, error) {
	begun, err := r.call(thread, "", "rollback_begin", map[string]any{"machines": machines})
	if err != nil {
		return nil, err
	}
	answer, ok := begun.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("rollback: got %T from the driver", begun)
	}
	v, err := f()
	_, undo := r.call(thread, "", "rollback_end", map[string]any{"id": answer["id"]})
	switch {
	case err != nil && undo != nil:
		// What the script did wrong comes first.
		r.session.Bus.Log(event.Error, "", "what a block has done could not be undone: "+undo.Error())
		return nil, err
	case undo != nil:
		return nil, undo
	}
	return v, err
}
