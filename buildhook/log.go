package buildhook

import (
	"encoding/json"
	"os"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/buildhook/admission"
)

// entry is a line of the log of decisions.
type entry struct {
	Time   time.Time         `json:"time"`
	PID    int               `json:"pid"`
	Drv    string            `json:"drv"`
	Event  string            `json:"event"`
	Reason string            `json:"reason,omitempty"`
	Demand *admission.Demand `json:"demand,omitempty"`
}

// maxLog is the size from which on a new log is begun, in bytes. The one before is
// kept.
const maxLog = 4 << 20

// colour is what Nix's messages have of it.
var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// log is a file to which all hooks append. Without one, a hook works, too.
type log struct{ file *os.File }

func openLog(dir string) *log {
	if makeDirs(dir) != nil {
		return &log{} // said when it matters
	}
	name := logFile(dir)
	if info, err := os.Stat(name); err == nil && info.Size() > maxLog {
		_ = os.Rename(name, name+".old") // at worst the log grows on
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return &log{}
	}
	return &log{file}
}

// note appends an entry, in one write, so that lines of several hooks stay whole.
func (l *log) note(e entry) {
	if l.file == nil {
		return
	}
	e.Reason = colour.ReplaceAllString(e.Reason, "")
	e.Time, e.PID = time.Now().Round(time.Millisecond), os.Getpid()
	if text, err := json.Marshal(e); err == nil {
		_, _ = l.file.Write(append(text, '\n')) // a full disk keeps nobody from building
	}
}

func (l *log) close() {
	if l.file != nil {
		l.file.Close()
	}
}
