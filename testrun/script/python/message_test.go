package python

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"vm-prebuild/testrun/machine"
)

func TestDecodeMessage(t *testing.T) {
	for _, tc := range []struct{ line, wantErr string }{
		{`{"id":1,"method":"succeed","machine":"m","args":{"commands":["true"],"timeout":null}}`, ""},
		{`{"environment":{"env":["A=b"],"cwd":"/"}}`, ""},
		{`{"id":1,"method":"sleep","machine":"m","args":{},"callbacks":true}`, ""},
		{`{"cancel":{"id":3}}`, ""},
		{`{"called_back":{"id":3}}`, ""},
		{`{"finished":{}}`, ""},
		{`{"failed":{"kind":"exit","message":"m","lines":[],"exit_code":255}}`, ""},
		{`{"unsupported":{"version":"3.9.2"}}`, ""},
		{``, "unexpected end of JSON input"},
		{`null`, "not one of"},
		{`[]`, "cannot unmarshal array"},
		{`{"finished":null}`, "not one of"},
		{`{"finished":{},"cancel":{"id":3}}`, "not one of"},
		{`{"method":"succeed","args":{}}`, `call of "succeed" without id`},
		{`{"id":-1,"method":"succeed","args":{}}`, "cannot unmarshal number -1"},
		{`{"id":1,"method":"succeed"}`, `arguments of "succeed" are not an object`},
		{`{"id":1,"method":"succeed","args":[]}`, `arguments of "succeed" are not an object`},
		{`{"failed":{"kind":"mood","exit_code":1}}`, `failure of kind "mood"`},
		{`{"failed":{"kind":"exit","exit_code":0}}`, "exit code 0"},
		{`{"failed":{"kind":"exit","exit_code":256}}`, "exit code 256"},
		{`{"failed":{"kind":"exit","exit_code":1,"line":-1}}`, "line -1"},
	} {
		_, err := decodeMessage([]byte(tc.line))
		switch {
		case tc.wantErr == "" && err != nil:
			t.Errorf("%s: %v", tc.line, err)
		case tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr)):
			t.Errorf("%s: got error %v, want %q in it", tc.line, err, tc.wantErr)
		}
	}
}

// What scripts may compare and what else is known cross apart.
func TestEncodeErrors(t *testing.T) {
	noted := &machine.AssertionError{Message: "m", Note: "n"}
	for _, tc := range []struct {
		err  error
		want string
	}{
		{errors.New("e"), `{"id":7,"error":{"kind":"machine","message":"e"}}`},
		{noted, `{"id":7,"error":{"kind":"assertion","message":"m","note":"n"}}`},
		{fmt.Errorf("a: %w", noted), `{"id":7,"error":{"kind":"assertion","message":"a: m\nn"}}`},
	} {
		if got := string(encodeReply(7, nil, tc.err)); got != tc.want+"\n" {
			t.Errorf("%v: got %s, want %s", tc.err, got, tc.want)
		}
	}
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(`{"id":1,"method":"succeed","machine":"m","args":{"commands":["true"]}}`))
	f.Add([]byte(`{"environment":{"env":["A=b"],"cwd":"/"}}`))
	f.Add([]byte(`{"cancel":{"id":3}}`))
	f.Add([]byte(`{"called_back":{"id":3}}`))
	f.Add([]byte(`{"finished":{}}`))
	f.Add([]byte(`{"failed":{"kind":"exit","message":"m","lines":["l"],"exit_code":3}}`))
	f.Add([]byte(`{"unsupported":{"version":"3.9.2"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := decodeMessage(line)
		if err != nil {
			return
		}
		if m.Method != "" && m.ID == 0 {
			t.Errorf("call without id from %q", line)
		}
		if m.Failed != nil && (m.Failed.ExitCode < 1 || m.Failed.ExitCode > 255) {
			t.Errorf("exit code %d from %q", m.Failed.ExitCode, line)
		}
	})
}
