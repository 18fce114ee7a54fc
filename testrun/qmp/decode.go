package qmp

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// message is one decoded line: a greeting, an event, or the reply to the
// command id, which has a value or an error.
type message struct {
	greeting bool
	event    *Event
	id       uint64
	value    json.RawMessage
	err      *Error // its Command is not set
}

// decode decodes one line that QEMU sent. The message does not share memory
// with line.
func decode(line []byte) (message, error) {
	var raw struct {
		QMP    json.RawMessage `json:"QMP"`
		Event  *string         `json:"event"`
		ID     json.RawMessage `json:"id"`
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &raw); err != nil {
		return message{}, fmt.Errorf("malformed line %s: %w", excerpt(line), err)
	}
	switch {
	case raw.QMP != nil:
		return message{greeting: true}, nil
	case raw.Event != nil:
		event := new(Event)
		if err := json.Unmarshal(line, event); err != nil {
			return message{}, fmt.Errorf("malformed event %s: %w", excerpt(line), err)
		}
		return message{event: event}, nil
	case raw.Return == nil && raw.Error == nil:
		return message{}, fmt.Errorf("neither greeting, event nor reply: %s", excerpt(line))
	}

	// QEMU leaves the id out when it could not parse the command, and then
	// nobody knows whose reply this is.
	id, err := strconv.ParseUint(string(raw.ID), 10, 64)
	if err != nil {
		return message{}, fmt.Errorf("reply without an id of ours: %s", excerpt(line))
	}
	if raw.Error == nil {
		return message{id: id, value: raw.Return}, nil
	}
	if raw.Error.Class == "" && raw.Error.Desc == "" {
		return message{}, errors.New("error reply that says nothing")
	}
	return message{id: id, err: &Error{Class: raw.Error.Class, Desc: raw.Error.Desc}}, nil
}

// excerpt quotes the beginning of a line for an error message.
func excerpt(line []byte) string {
	const most = 120
	if len(line) > most {
		return strconv.Quote(string(line[:most])) + "..."
	}
	return strconv.Quote(string(line))
}
