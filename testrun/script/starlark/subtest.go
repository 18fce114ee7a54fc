package starlark

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/script"
)

// subtests is what has become of the subtests of one script.
type subtests struct {
	only    *regexp.Regexp // those to run; nil: all
	matched bool           // one of them has been met
	skipped []string       // names of others, quoted
	failed  []failedSubtest
}

// failedSubtest is one after which the script went on.
type failedSubtest struct {
	name    string
	failure *script.Failure
}

func newSubtests(only string) (subtests, error) {
	if only == "" {
		return subtests{}, nil
	}
	re, err := regexp.Compile(only)
	if err != nil {
		return subtests{}, fmt.Errorf("--subtest %q: %w", only, err)
	}
	return subtests{only: re}, nil
}

// insideKey is where a thread keeps the name of the subtest that it is in: all
// inside of one that is run are run.
const insideKey = "subtest"

// wants says whether a subtest is to run.
func (s *subtests) wants(thread *starlark.Thread, name string) bool {
	if s.only == nil || thread.Local(insideKey) != nil {
		return true
	}
	matches := s.only.MatchString(name)
	s.matched = s.matched || matches
	if !matches {
		s.skipped = append(s.skipped, strconv.Quote(name))
	}
	return matches
}

// subtest calls fn as a part of the test that has a name. If it is isolated, what it
// has done to machines is undone then.
func (r *runtime) subtest(thread *starlark.Thread, name string, fn starlark.Callable, isolated bool) (starlark.Value, error) {
	if !r.subtests.wants(thread, name) {
		r.session.Bus.Log(event.Info, "", "(skipped: subtest: "+name+")")
		return starlark.None, nil
	}
	outer := thread.Local(insideKey)
	thread.SetLocal(insideKey, name)
	defer thread.SetLocal(insideKey, outer)
	block := r.session.Bus.Open(event.BlockOpen{Text: "subtest: " + name, Subtest: name})
	call := func() (starlark.Value, error) { return starlark.Call(thread, fn, nil, nil) }
	var v starlark.Value
	var err error
	if isolated {
		v, err = r.rollback(thread, nil, call)
	} else {
		v, err = call()
	}
	if err == nil {
		block.Close("")
		return v, nil
	}
	defer block.Close(reason(err))
	if r.ending(thread, err) {
		return nil, err
	}
	why := reason(err)
	if r.session.KeepGoing {
		why, _, _ = strings.Cut(why, "\n") // the account below has all of it
	}
	account := fmt.Sprintf(`Test "%s" failed with error: "%s"`, name, why)
	r.session.Bus.Emit(event.TestFailure{Lines: strings.Split(account, "\n")})
	if !r.session.KeepGoing {
		return nil, err
	}
	failure := r.failure(err)
	r.session.Bus.Emit(event.TestFailure{Lines: failure.Lines, Script: r.session.ScriptPath, Line: failure.Line, Subtest: name})
	r.subtests.failed = append(r.subtests.failed, failedSubtest{name: name, failure: failure})
	return starlark.None, nil
}

// result is what the end of the script leaves to be said of its subtests.
func (s *subtests) result() error {
	switch {
	case len(s.failed) > 0:
		return s.failure()
	case s.only != nil && !s.matched:
		those := "none"
		if len(s.skipped) > 0 {
			those = strings.Join(s.skipped, ", ")
		}
		message := fmt.Sprintf("no subtest matches --subtest %q: the script has %s", s.only, those)
		return &script.Failure{Kind: script.KindException, Message: message, Lines: []string{message}, ExitCode: 1}
	}
	return nil
}

func (s *subtests) failure() *script.Failure {
	var names []string
	f := &script.Failure{Kind: script.KindAssertion, ExitCode: 1, Line: s.failed[0].failure.Line, Lines: []string{""}}
	for _, sub := range s.failed {
		names = append(names, sub.name)
		where := ""
		if sub.failure.Line > 0 {
			where = fmt.Sprintf("line %d: ", sub.failure.Line)
		}
		f.Lines = append(f.Lines, "  "+sub.name+": "+where+sub.failure.Message)
		if sub.failure.Kind == script.KindMachine {
			f.Kind = script.KindMachine
		}
	}
	plural := "s"
	if len(names) == 1 {
		plural = ""
	}
	f.Message = fmt.Sprintf("%d subtest%s failed: %s", len(names), plural, strings.Join(names, ", "))
	f.Lines[0] = f.Message
	return f
}
