package storedb

import (
	"os"
	"strconv"
	"strings"
)

// umask is the process's, as far as the system tells: it can only be asked for
// by changing it, or of /proc. Unknown, it takes everything away.
func umask() uint32 {
	const unknown = 0o777
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return unknown
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "Umask:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32)
			if err != nil {
				return unknown
			}
			return uint32(mask)
		}
	}
	return unknown
}
