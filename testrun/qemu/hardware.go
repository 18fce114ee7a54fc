package qemu

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vm-prebuild/testrun/accel"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/shell"
)

// hardware is what a machine turns out to consist of once its QEMU runs. A state
// fits the same hardware only.
type hardware struct {
	QEMU        string       `json:"qemu"` // version, with that of the distribution
	Binary      fileIdentity `json:"binary"`
	KVM         bool         `json:"kvm"`
	MemoryBytes int64        `json:"memoryBytes"`
	// TicksPerSecond is how fast the guest's time stamp counter runs, which is the host's.
	TicksPerSecond int64          `json:"ticksPerSecond"`
	Disk           bool           `json:"disk"`      // the machine has one that it writes to
	DiskBase       string         `json:"diskBase"`  // what the start script laid that over; "" for nothing
	Arguments      []string       `json:"arguments"` // QEMU's, with names for what differs from run to run
	Files          []fileIdentity `json:"files"`     // that the arguments name, and that need not stay the same
	Console        []string       `json:"console"`   // what the guest had written; not compared
	Shell          shell.Saved    `json:"shell"`     // not compared

	obstacles []string // what keeps the machine from being saved
	named     []string // paths of what may belong to Files, see identifyFiles
	made      []string // images that the start script makes, and that the machine could write to
}

// check returns an error when the machine has something that cannot be saved.
func (h hardware) check() error {
	return unsavable(h.obstacles)
}

// fits says how a machine differs from the one that was saved, but for files.
func (h hardware) fits(saved hardware) error {
	switch {
	case h.QEMU != saved.QEMU || h.Binary != saved.Binary:
		return fmt.Errorf("it was saved by another QEMU: %s, %s; this is %s, %s", saved.QEMU, saved.Binary.Path, h.QEMU, h.Binary.Path)
	case h.KVM != saved.KVM:
		return errors.New("it was saved under another accelerator")
	case h.MemoryBytes != saved.MemoryBytes:
		return fmt.Errorf("it was saved with %d bytes of memory; this machine has %d", saved.MemoryBytes, h.MemoryBytes)
	// A clock that is wrong by so little is what computers have.
	case max(h.TicksPerSecond, saved.TicksPerSecond)-min(h.TicksPerSecond, saved.TicksPerSecond) > saved.TicksPerSecond/2000:
		return fmt.Errorf("it was saved on a host whose time stamp counter runs at %d MHz, and this one's at %d: the guest's clock would be wrong", saved.TicksPerSecond/1e6, h.TicksPerSecond/1e6)
	case h.Disk != saved.Disk || h.DiskBase != saved.DiskBase:
		return fmt.Errorf("it was saved with a disk laid over %q; this one is laid over %q", saved.DiskBase, h.DiskBase)
	case !slices.Equal(h.Arguments, saved.Arguments):
		return fmt.Errorf("it was saved with other arguments of QEMU: %s", difference(saved.Arguments, h.Arguments))
	}
	return nil
}

// sameFiles says which file is not what it was when the machine was saved.
func (h hardware) sameFiles(saved hardware) error {
	if slices.Equal(h.Files, saved.Files) {
		return nil
	}
	return fmt.Errorf("files that QEMU was given have changed since it was saved: %s", differentFile(saved.Files, h.Files))
}

// unwritten returns an error when the machine has written to an image that the start
// script had made: before is what was found before the guest ran.
func (h hardware) unwritten(before []fileIdentity) error {
	for _, name := range h.made {
		is := func(f fileIdentity) bool { return f.Path == name }
		was, now := slices.IndexFunc(before, is), slices.IndexFunc(h.Files, is)
		if was < 0 || now < 0 || before[was] != h.Files[now] {
			return &machine.UnsavableError{Reason: fmt.Sprintf("%s has changed since QEMU was started to look at it: the machine has written to it, or its start script makes another one each time", name)}
		}
	}
	return nil
}

// difference shows where two lists of arguments part.
func difference(saved, now []string) string {
	i := 0
	for i < len(saved) && i < len(now) && saved[i] == now[i] {
		i++
	}
	at := func(args []string) string {
		if i == len(args) {
			return "nothing"
		}
		return strings.Join(args[max(0, i-1):i+1], " ")
	}
	return fmt.Sprintf("%s then, %s now", at(saved), at(now))
}

func differentFile(saved, now []fileIdentity) string {
	for i, f := range now {
		if i >= len(saved) || saved[i] != f {
			return f.Path
		}
	}
	return "there are fewer"
}

// surveyLimit is how long QEMU may take for all questions about a machine.
const surveyLimit = 30 * time.Second

// survey finds out what a machine consists of, but for the content of files, which
// may have gigabytes: see identifyFiles.
func (p *process) survey(ctx context.Context) (h hardware, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, surveyLimit, fmt.Errorf("QEMU did not say within %v what the machine consists of", surveyLimit))
	defer cancel()
	var version struct {
		QEMU    struct{ Major, Minor, Micro int }
		Package string
	}
	var kvm struct{ Enabled bool }
	var memory struct {
		Base    int64 `json:"base-memory"`
		Plugged int64 `json:"plugged-memory"`
	}
	var tpm []json.RawMessage
	for _, q := range []struct {
		command string
		result  any
	}{
		{"query-version", &version},
		{"query-kvm", &kvm},
		{"query-memory-size-summary", &memory},
		{"query-tpm", &tpm},
	} {
		if err := p.query(ctx, q.command, q.result); err != nil {
			return h, err
		}
	}
	h.QEMU = fmt.Sprintf("%d.%d.%d %s", version.QEMU.Major, version.QEMU.Minor, version.QEMU.Micro, version.Package)
	h.KVM, h.MemoryBytes, h.TicksPerSecond = kvm.Enabled, memory.Base, accel.TicksPerSecond()
	if h.obstacles, err = p.migrationBlockers(ctx); err != nil {
		return h, err
	}
	if memory.Plugged != 0 {
		h.obstacles = append(h.obstacles, "it has memory that was plugged in")
	}
	if len(tpm) > 0 {
		h.obstacles = append(h.obstacles, hasTPM)
	}
	pid := int(p.qemuPID.Load())
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return h, err
	}
	if h.Binary, err = identifyProgram(exe); err != nil {
		return h, err
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return h, err
	}
	images, err := p.surveyDisks(ctx, &h, cwd)
	if err != nil {
		return h, err
	}
	args := commandLine(pid)
	if args == nil {
		return h, fmt.Errorf("the command line of QEMU (pid %d) cannot be read", pid)
	}
	h.obstacles = slices.Concat(h.obstacles, statesOfOthers(args), memoryObstacles(args), fatObstacles(args))
	h.Arguments = p.run.normalise(args, p.cfg.Dirs, environment(p.started))
	h.named = append(pathsIn(args, cwd), images...)
	h.Console = p.console.lines()
	return h, nil
}

// identifyFiles describes those of the named paths that are files, and not of the
// state. It reads those in the machine's state directory.
func (p *process) identifyFiles(ctx context.Context, paths []string) (files []fileIdentity, err error) {
	state, err := filepath.EvalSymlinks(p.cfg.Dirs.State)
	if err != nil {
		return nil, err
	}
	for _, named := range paths {
		path, err := filepath.EvalSymlinks(named)
		if err != nil {
			continue // it names no file
		}
		// What the store has under a name that is compared already need not be named again.
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || inStore(named) && inStore(path) || path == p.run.files.RAM || path == p.run.state.Disk {
			continue
		}
		var id fileIdentity
		if inside, ok := strings.CutPrefix(path, state+"/"); ok {
			id, err = identifyContent(ctx, path, stateName(inside))
		} else {
			id, err = identify(path)
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(files, id) {
			files = append(files, id)
		}
	}
	slices.SortFunc(files, func(a, b fileIdentity) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}

// stateName is the name of a file in the machine's state directory, wherever that is.
func stateName(inside string) string { return "@state@/" + inside }

// inState returns that name of a file, if it is one there and no symbolic link leads
// elsewhere.
func (p *process) inState(path string) (name string, ok bool) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", false
	}
	state, err := filepath.EvalSymlinks(p.cfg.Dirs.State)
	if err != nil {
		return "", false
	}
	inside, ok := strings.CutPrefix(path, state+"/")
	return stateName(inside), ok
}

// diskImage is what query-block tells of one.
type diskImage struct {
	Filename string     `json:"filename"`
	Format   string     `json:"format"`
	Backing  *diskImage `json:"backing-image"`
}

// surveyDisks notes what the machine writes to, and returns its images and what they are
// based on.
func (p *process) surveyDisks(ctx context.Context, h *hardware, cwd string) (based []string, err error) {
	var disks []struct {
		Device   string `json:"device"`
		QDev     string `json:"qdev"`
		Inserted *struct {
			File     string    `json:"file"`
			ReadOnly bool      `json:"ro"`
			Image    diskImage `json:"image"`
		} `json:"inserted"`
	}
	if err := p.query(ctx, "query-block", &disks); err != nil {
		return nil, err
	}
	for _, d := range disks {
		if d.Inserted == nil {
			continue
		}
		name, made := p.inState(at(cwd, d.Inserted.File))
		own := p.run.state.Disk != "" && d.Inserted.File == p.run.state.Disk
		switch {
		case own && d.Inserted.Image.Format == "qcow2":
			h.Disk = true
			if err := p.surveyBase(h); err != nil {
				return nil, err
			}
		case own:
			h.obstacles = append(h.obstacles, fmt.Sprintf("its disk image has the format %s, not qcow2", d.Inserted.Image.Format))
		case d.Inserted.ReadOnly:
		case made && d.Inserted.Image.Format == "raw":
			// nixpkgs' images of a machine's store: nothing is written to them, though
			// QEMU would let it. Whether it was is seen when the machine is saved.
			h.made = append(h.made, name)
		default:
			h.obstacles = append(h.obstacles, fmt.Sprintf("it writes to %s (%s), which is not the disk that NIX_DISK_IMAGE names", cmp.Or(d.Device, d.QDev), d.Inserted.File))
		}
		for i := &d.Inserted.Image; i != nil; i = i.Backing {
			based = append(based, at(cwd, i.Filename))
		}
	}
	// That of the state is one more than there was when it was saved.
	return slices.DeleteFunc(based, func(s string) bool { return s == p.run.files.Disk }), nil
}

// surveyBase notes what the disk of a state, or of one that is to be, is laid over.
func (p *process) surveyBase(h *hardware) (err error) {
	disk := cmp.Or(p.run.files.Disk, p.run.state.Disk)
	if h.DiskBase, err = qcow2Backing(disk); err != nil {
		return err
	}
	text, err := p.cfg.Command.Text()
	if err != nil {
		return err
	}
	if err := checkBase("its disk", h.DiskBase, text); err != nil {
		h.obstacles = append(h.obstacles, err.Error())
	}
	return nil
}

const hasTPM = "it has a TPM, whose state is not QEMU's"

// inputVariables are the environment's part in what start scripts start.
var inputVariables = []string{"QEMU_OPTS", "QEMU_NET_OPTS", "QEMU_KERNEL_PARAMS"}

// Inputs implements machine.Restorer. What it does not know, the arguments and
// files of QEMU's, is compared once QEMU runs.
func (m *Machine) Inputs(o machine.StartOptions) ([]machine.Input, error) {
	if err := m.savable(o); err != nil {
		return nil, err
	}
	if err := m.cfg.Command.Check(); err != nil {
		return nil, err
	}
	text, err := m.cfg.Command.Text()
	if err != nil {
		return nil, err
	}
	inputs := []machine.Input{
		{Name: "machine", Value: m.cfg.Name},
		// With the names of store paths it has their hashes.
		{Name: "start script", Value: m.cfg.Command.String()},
		{Name: "start script's text", Value: digest(text)},
		{Name: "further arguments", Value: strings.Join(m.cfg.Command.QEMUArguments, " ")},
		{Name: "display", Value: fmt.Sprint(m.cfg.Display)},
		{Name: "output console", Value: fmt.Sprint(m.cfg.StreamOutput)},
		{Name: "shell", Value: shell.Version()},
	}
	program := m.cfg.Command.Program()
	if id, err := identifyProgram(program); err == nil {
		inputs = append(inputs, machine.Input{Name: "QEMU", Value: fmt.Sprintf("%s %d %d", id.Path, id.Size, id.MTime)})
	} else if program != "" && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, v := range environment(o) {
		name, value, _ := strings.Cut(v, "=")
		if slices.Contains(inputVariables, name) || strings.HasPrefix(name, "NIXPKGS_QEMU_KERNEL_") {
			inputs = append(inputs, machine.Input{Name: "$" + name, Value: value})
		}
	}
	under := "kvm"
	if m.cfg.ForceTCG != nil {
		tcg, err := m.cfg.ForceTCG()
		if err != nil {
			return nil, err
		}
		if tcg {
			under = "tcg"
		}
	}
	inputs = append(inputs, machine.Input{Name: "accelerator", Value: under})
	if under == "kvm" {
		// Whatever the CPU model is called, the guest has features of this CPU.
		cpu, err := accel.HostCPU()
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, machine.Input{Name: machine.HostCPUInput, Value: cpu})
	}
	return inputs, nil
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
