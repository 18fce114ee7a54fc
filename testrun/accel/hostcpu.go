package accel

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
)

// HostCPU tells this host's first CPU from others, its microcode included: by its
// name, and a hash of all that Linux says of it.
func HostCPU() (string, error) {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(text), "\n\n")
	var model string
	var kept []string
	for line := range strings.Lines(first) {
		name, value, _ := strings.Cut(line, ":")
		switch name = strings.TrimSpace(name); name {
		case "processor", "core id", "physical id", "apicid", "initial apicid", "cpu MHz", "bogomips", "siblings", "cpu cores":
			continue // of one core, or of the moment
		case "model name":
			model = strings.TrimSpace(value)
		}
		kept = append(kept, line)
	}
	sum := sha256.Sum256([]byte(strings.Join(kept, "")))
	return model + " " + hex.EncodeToString(sum[:]), nil
}
