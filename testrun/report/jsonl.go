package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"vm-prebuild/testrun/event"
)

// JSONLines writes one JSON object per event and line; docs/reports.md has the
// names of all members. A line is in the file before the next event is handled.
type JSONLines struct {
	out   *stream
	begin time.Time
	buf   bytes.Buffer
	err   error // of the first event that could not be written
}

// NewJSONLines returns a sink that writes to file, from now on.
func NewJSONLines(file string) (*JSONLines, error) {
	out, err := openStream("JSON lines", file)
	if err != nil {
		return nil, err
	}
	return &JSONLines{out: out}, nil
}

// Handle implements event.Sink.
func (j *JSONLines) Handle(r event.Record) {
	if j.out.discards() {
		return
	}
	if j.begin.IsZero() {
		j.begin = r.Time
	}
	j.buf.Reset()
	if err := encodeJSON(&j.buf, r, j.begin); err != nil {
		if j.err == nil {
			j.err = fmt.Errorf("JSON lines: %w", err)
		}
		return
	}
	// An error stays with the writer and is reported by close.
	_, _ = j.out.Write(j.buf.Bytes())
	_ = j.out.Flush()
}

// Close implements event.Sink.
func (j *JSONLines) Close() error {
	if err := j.out.close(); err != nil {
		return err
	}
	return j.err
}

// header is what the objects of all types have in common.
type header struct {
	Time     stamp    `json:"time"`
	Seconds  seconds  `json:"seconds"` // since the first event, by the monotonic clock
	Type     string   `json:"type"`
	Duration *seconds `json:"duration,omitempty"`
}

// The events as they are written. A conversion between an event and its line
// only compiles while both have the same members, so none is forgotten.
type (
	logLine struct {
		Level   event.Level `json:"level"`
		Machine string      `json:"machine,omitempty"`
		Text    string      `json:"text"`
		Always  bool        `json:"always,omitempty"`
	}
	blockOpenLine struct {
		ID      uint64            `json:"id"`
		Machine string            `json:"machine,omitempty"`
		Text    string            `json:"text"`
		Attrs   map[string]string `json:"attributes,omitempty"`
		Subtest string            `json:"subtest,omitempty"`
	}
	blockCloseLine struct {
		ID       uint64        `json:"id"`
		Machine  string        `json:"machine,omitempty"`
		Text     string        `json:"text"`
		Subtest  string        `json:"subtest,omitempty"`
		Duration time.Duration `json:"-"`
		Failure  string        `json:"failure,omitempty"`
	}
	serialLine struct {
		Machine string `json:"machine"`
		Text    string `json:"text"`
		Stderr  bool   `json:"stderr,omitempty"`
	}
	outputLine struct {
		Machine string `json:"machine"`
		Text    string `json:"text"`
	}
	commandLine struct {
		Machine  string        `json:"machine"`
		Text     string        `json:"text"`
		Duration time.Duration `json:"-"`
		Status   int           `json:"status"`
		Stdout   string        `json:"stdout"`
		Stderr   string        `json:"stderr"`
		Failure  string        `json:"failure,omitempty"`
	}
	startedLine struct {
		Machine     string   `json:"machine"`
		PID         int      `json:"pid"`
		CommandLine []string `json:"command_line"`
	}
	connectedLine struct {
		Machine  string        `json:"machine"`
		Duration time.Duration `json:"-"`
	}
	stoppedLine struct {
		Machine  string `json:"machine"`
		Reason   string `json:"reason"`
		Expected bool   `json:"expected"`
	}
	artifactLine struct {
		Machine string `json:"machine,omitempty"`
		Kind    string `json:"kind"`
		Path    string `json:"path"`
	}
	trafficLine struct {
		VLAN       int    `json:"vlan"`
		Machine    string `json:"machine,omitempty"`
		FromFrames uint64 `json:"from_frames"`
		FromBytes  uint64 `json:"from_bytes"`
		ToFrames   uint64 `json:"to_frames"`
		ToBytes    uint64 `json:"to_bytes"`
		Dropped    uint64 `json:"dropped"`
	}
	failureLine struct {
		Lines   []string `json:"lines"`
		Script  string   `json:"script,omitempty"`
		Line    int      `json:"line,omitempty"`
		Subtest string   `json:"subtest,omitempty"`
	}
	finishedLine struct {
		Duration time.Duration `json:"-"`
		Failure  string        `json:"failure,omitempty"`
	}
)

// lineOf returns the type of e, what is written of it, and its duration where
// the type has one.
func lineOf(e event.Event) (kind string, line any, duration *seconds) {
	lasted := func(d time.Duration) *seconds { return (*seconds)(&d) }
	switch e := e.(type) {
	case event.Log:
		return "log", logLine(e), nil
	case event.BlockOpen:
		return "block_open", blockOpenLine(e), nil
	case event.BlockClose:
		return "block_close", blockCloseLine(e), lasted(e.Duration)
	case event.Serial:
		return "serial", serialLine(e), nil
	case event.Output:
		return "output", outputLine(e), nil
	case event.Command:
		return "command", commandLine(e), lasted(e.Duration)
	case event.MachineStarted:
		return "machine_started", startedLine(e), nil
	case event.MachineConnected:
		return "machine_connected", connectedLine(e), lasted(e.Duration)
	case event.MachineStopped:
		return "machine_stopped", stoppedLine(e), nil
	case event.Artifact:
		return "artifact", artifactLine(e), nil
	case event.Traffic:
		return "traffic", trafficLine(e), nil
	case event.TestFailure:
		return "test_failure", failureLine(e), nil
	case event.TestFinished:
		return "test_finished", finishedLine(e), lasted(e.Duration)
	}
	return "", nil, nil
}

// encodeJSON appends the line of r, line feed included.
func encodeJSON(buf *bytes.Buffer, r event.Record, begin time.Time) error {
	kind, line, duration := lineOf(r.Event)
	if line == nil {
		return fmt.Errorf("no line is known for %T", r.Event)
	}
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	// Two objects are made one: the header is short, and members of its own
	// would have to be repeated in each type of line.
	if err := enc.Encode(header{Time: stamp(r.Time), Seconds: seconds(r.Time.Sub(begin)), Type: kind, Duration: duration}); err != nil {
		return err
	}
	buf.Truncate(buf.Len() - len("}\n"))
	join := buf.Len()
	if err := enc.Encode(line); err != nil {
		return err
	}
	if rest := buf.Bytes()[join:]; string(rest) == "{}\n" {
		buf.Truncate(join)
		buf.WriteString("}\n")
	} else {
		rest[0] = ','
	}
	return nil
}

// DecodeJSONLine returns the event that [JSONLines] has written as line. Only
// the wall clock's time is in a record that was read.
func DecodeJSONLine(line []byte) (event.Record, error) {
	var h header
	if err := json.Unmarshal(line, &h); err != nil {
		return event.Record{}, fmt.Errorf("line of a JSON log: %w", err)
	}
	var d time.Duration
	if h.Duration != nil {
		d = time.Duration(*h.Duration)
	}
	e, err := decodeEvent(h.Type, d, line)
	if err != nil {
		return event.Record{}, fmt.Errorf("line of a JSON log: %w", err)
	}
	return event.Record{Time: time.Time(h.Time), Event: e}, nil
}

func decodeEvent(kind string, d time.Duration, line []byte) (event.Event, error) {
	switch kind {
	case "log":
		l, err := decode[logLine](line)
		return event.Log(l), err
	case "block_open":
		l, err := decode[blockOpenLine](line)
		return event.BlockOpen(l), err
	case "block_close":
		l, err := decode[blockCloseLine](line)
		l.Duration = d
		return event.BlockClose(l), err
	case "serial":
		l, err := decode[serialLine](line)
		return event.Serial(l), err
	case "output":
		l, err := decode[outputLine](line)
		return event.Output(l), err
	case "command":
		l, err := decode[commandLine](line)
		l.Duration = d
		return event.Command(l), err
	case "machine_started":
		l, err := decode[startedLine](line)
		return event.MachineStarted(l), err
	case "machine_connected":
		l, err := decode[connectedLine](line)
		l.Duration = d
		return event.MachineConnected(l), err
	case "machine_stopped":
		l, err := decode[stoppedLine](line)
		return event.MachineStopped(l), err
	case "artifact":
		l, err := decode[artifactLine](line)
		return event.Artifact(l), err
	case "traffic":
		l, err := decode[trafficLine](line)
		return event.Traffic(l), err
	case "test_failure":
		l, err := decode[failureLine](line)
		return event.TestFailure(l), err
	case "test_finished":
		l, err := decode[finishedLine](line)
		l.Duration = d
		return event.TestFinished(l), err
	}
	return nil, fmt.Errorf("unknown type %q", kind)
}

func decode[T any](line []byte) (T, error) {
	var l T
	err := json.Unmarshal(line, &l)
	return l, err
}

// stamp is a time that is written as RFC 3339 with all nine digits of its
// nanoseconds, in UTC.
type stamp time.Time

// MarshalJSON implements json.Marshaler.
func (s stamp) MarshalJSON() ([]byte, error) {
	return []byte(time.Time(s).UTC().Format(`"2006-01-02T15:04:05.000000000Z07:00"`)), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *stamp) UnmarshalJSON(b []byte) error {
	return (*time.Time)(s).UnmarshalJSON(b)
}

// seconds is a duration that is written as a number of seconds with nine
// digits behind the point.
type seconds time.Duration

// MarshalJSON implements json.Marshaler.
func (s seconds) MarshalJSON() ([]byte, error) {
	sign := ""
	n := uint64(s)
	if s < 0 {
		sign, n = "-", -n
	}
	return fmt.Appendf(nil, "%s%d.%09d", sign, n/1e9, n%1e9), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *seconds) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return err
	}
	if math.Abs(n) > math.MaxInt64/2/1e9 {
		return fmt.Errorf("%s seconds are too many", b)
	}
	*s = seconds(math.Round(n * 1e9))
	return nil
}
