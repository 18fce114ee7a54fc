package python

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"vm-prebuild/testrun/script"
)

// maxMessage bounds one message of the script, in bytes. Scripts pass whole
// files as arguments.
const maxMessage = 64 << 20

// message is what the script sends. It is exactly one of: a call (id, method,
// machine, args, callbacks), which gets a [reply]; the environment as it is
// from now on; the wish to cancel a call; the answer to a [callback]; or how
// the script ended, which is the last one but for calls of threads and exit
// handlers.
type message struct {
	ID        uint64          `json:"id"`
	Method    string          `json:"method"`
	Machine   string          `json:"machine"`
	Args      json.RawMessage `json:"args"`
	Callbacks bool            `json:"callbacks"` // waits send a callback between polls

	Environment *script.Environment `json:"environment"`
	Cancel      *callReference      `json:"cancel"`
	CalledBack  *callReference      `json:"called_back"`
	Finished    *struct{}           `json:"finished"`
	Failed      *failure            `json:"failed"`
	Unsupported *interpreter        `json:"unsupported"`
}

type callReference struct {
	ID uint64 `json:"id"`
}

// failure is a [script.Failure].
type failure struct {
	Kind     script.Kind `json:"kind"`
	Message  string      `json:"message"`
	Lines    []string    `json:"lines"`
	ExitCode int         `json:"exit_code"`
	Line     int         `json:"line"`
}

// interpreter is sent instead of anything else by a Python that is too old.
type interpreter struct {
	Version string `json:"version"`
}

// decodeMessage checks and reads one line of the script.
func decodeMessage(line []byte) (message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("malformed message: %w", err)
	}
	forms := 0
	for _, present := range []bool{
		m.Method != "", m.Environment != nil, m.Cancel != nil, m.CalledBack != nil,
		m.Finished != nil, m.Failed != nil, m.Unsupported != nil,
	} {
		if present {
			forms++
		}
	}
	if forms != 1 {
		return message{}, errors.New("malformed message: not one of call, environment, cancel, called_back, finished, failed, unsupported")
	}
	if m.Method != "" {
		if m.ID == 0 {
			return message{}, fmt.Errorf("malformed message: call of %q without id", m.Method)
		}
		if !bytes.HasPrefix(m.Args, []byte("{")) {
			return message{}, fmt.Errorf("malformed message: arguments of %q are not an object", m.Method)
		}
	}
	if f := m.Failed; f != nil {
		switch f.Kind {
		case script.KindAssertion, script.KindMachine, script.KindException, script.KindSyntax, script.KindExit:
		default:
			return message{}, fmt.Errorf("malformed message: failure of kind %q", f.Kind)
		}
		if f.Line < 0 {
			return message{}, fmt.Errorf("malformed message: line %d", f.Line)
		}
		if f.ExitCode < 1 || f.ExitCode > 255 {
			return message{}, fmt.Errorf("malformed message: exit code %d", f.ExitCode)
		}
	}
	return m, nil
}

// initial is the first line that the script gets: {"init": …}.
type initial struct {
	Init setup `json:"init"`
}

type setup struct {
	ScriptPath string               `json:"script_path"`
	Machines   []script.MachineInfo `json:"machines"`
	VLANs      []int                `json:"vlans"`
	OutDir     string               `json:"out_dir"`
	TmpDir     string               `json:"tmp_dir"`
	Mode       string               `json:"mode"`
	KeepGoing  bool                 `json:"keep_going"`
	Subtest    string               `json:"subtest"`
	DebugHook  string               `json:"debug_hook"`
	Modules    map[string]string    `json:"modules"` // sources of test_driver; of packages under "name.*", too
}

const (
	modeRun      = "run"
	modeInteract = "interact"
)

// callback asks the thread of a call under way to check its polling
// conditions. The script answers called_back; or, when a condition fails,
// cancels the call.
type callback struct {
	ID       uint64 `json:"id"`
	Callback bool   `json:"callback"` // true
}

// reply answers the call with the same ID.
type reply struct {
	ID     uint64      `json:"id"`
	Result any         `json:"result,omitempty"`
	Error  *replyError `json:"error,omitempty"`
}

// replyError becomes the exception of its kind in the script.
type replyError struct {
	Kind    script.Kind `json:"kind"`
	Message string      `json:"message"`
	Note    string      `json:"note,omitempty"`
}

// encodeReply returns the line that answers a call.
func encodeReply(id uint64, result any, err error) []byte {
	if err == nil {
		var line []byte
		if line, err = encodeLine(reply{ID: id, Result: result}); err == nil {
			return line
		}
	}
	e := &replyError{Kind: script.KindOf(err), Message: err.Error()}
	if noted, ok := err.(script.Noted); ok { // itself: what wraps it has a message of its own
		e.Message, e.Note = noted.Parts()
	}
	line, _ := encodeLine(reply{ID: id, Error: e}) // strings cannot fail to encode
	return line
}

// encodeLine returns v as a line of JSON.
func encodeLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
