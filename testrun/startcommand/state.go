package startcommand

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// State is what the saving and restoring of a machine's state wants of QEMU. The
// zero value is for machines that boot and are not saved.
type State struct {
	Paused bool // QEMU waits before the guest's first instruction

	// RAM is the file with the guest's memory, of MemoryBytes; "" for none. A
	// guest that only Reads it has a copy of its own of each page that it writes.
	RAM         string
	MemoryBytes int64
	Reads       bool

	Incoming bool   // QEMU waits for the state of its devices
	Disk     string // file of the machine's disk; "" leaves that to the script
}

// RAMID is the object that is the guest's memory.
const RAMID = "vm-prebuild-ram"

// RAMArgument is what QEMU is told of the memory, as one argument.
func (s State) RAMArgument() string {
	share := "on"
	if s.Reads {
		share = "off"
	}
	return fmt.Sprintf("memory-backend-file,id=%s,size=%d,mem-path=%s,share=%s", RAMID, s.MemoryBytes, s.RAM, share)
}

// GenerationArgument is the device that tells the guest's kernel that it is
// another clone than before.
const GenerationArgument = "vmgenid,guid=auto"

func (s State) qemuArguments(text string, env []string) []string {
	var args []string
	if s.Paused {
		args = append(args, "-S")
	}
	if s.RAM != "" {
		// QEMU merges -machine options.
		args = append(args, "-object", s.RAMArgument(), "-machine", "memory-backend="+RAMID)
	}
	if (s.RAM != "" || s.Paused) && x86.MatchString(text) && !mentions(text, env, "vmgenid") && !mentions(text, env, "microvm") {
		// There can be one only, and it needs ACPI. Linux since 5.18 reseeds its
		// random numbers when the identifier has changed.
		args = append(args, "-device", GenerationArgument)
	}
	if s.Incoming {
		args = append(args, "-incoming", "defer")
	}
	return args
}

var qemuProgram = regexp.MustCompile(`[^\s"'=]*\bqemu-(system-[a-z0-9_]+|kvm)(\s|$)`)

// Program is the QEMU that the start command executes, without symbolic links,
// as far as its text tells; "" otherwise.
func (c Command) Program() string {
	text, err := c.Text()
	if err != nil {
		return ""
	}
	path, err := exec.LookPath(strings.TrimSpace(qemuProgram.FindString(text)))
	if err != nil {
		return ""
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return ""
	}
	return path
}
