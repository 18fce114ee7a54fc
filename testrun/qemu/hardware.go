package qemu

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/accel"
	"vm-prebuild/testrun/machine"
	"vm-prebuild/testrun/shell"
	"vm-prebuild/testrun/startcommand"
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

// fileIdentity tells a file that is not in the Nix store from what it was before.
type fileIdentity struct {
	Path   string `json:"path"` // without symbolic links
	Size   int64  `json:"size,omitempty"`
	MTime  int64  `json:"mtime,omitempty"` // nanoseconds
	Inode  uint64 `json:"inode,omitempty"`
	CTime  int64  `json:"ctime,omitempty"` // nanoseconds
	SHA256 string `json:"sha256,omitempty"`
}

// identifyProgram describes a program. What is in the store is what its name says; what
// a distribution has installed is the same on other hosts, too, and so has no inode here.
func identifyProgram(path string) (fileIdentity, error) {
	id, err := identify(path)
	id.Inode, id.CTime = 0, 0
	return id, err
}

// identify describes a file, by what its name leads to. Size and mtime do not do: a
// link can lead to another file with the same ones, as all in the store have the
// same mtime, and copies have it from the original.
func identify(path string) (fileIdentity, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fileIdentity{}, err
	}
	if inStore(path) {
		return fileIdentity{Path: path}, nil
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileIdentity{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileIdentity{Path: path, Size: st.Size, MTime: st.Mtim.Nano(), Inode: st.Ino, CTime: st.Ctim.Nano()}, nil
}

// identifyContent describes a file that the start script makes anew each time, in
// the machine's state directory, by its content: nixpkgs' store images.
func identifyContent(ctx context.Context, path, name string) (fileIdentity, error) {
	f, err := openRegular(path)
	if err != nil {
		return fileIdentity{}, err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, readerUntil{ctx, f})
	return fileIdentity{Path: name, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}, err
}

// readerUntil reads until its context ends.
type readerUntil struct {
	ctx context.Context
	io.Reader
}

func (r readerUntil) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(b)
}

// openRegular opens a file for reading. What is no file is an error at once: the
// opening of a FIFO would wait for a writer.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func inStore(path string) bool { return strings.HasPrefix(path, "/nix/store/") }

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

// options are QEMU's arguments with what stands before each, without dashes.
func options(args []string) iter.Seq2[string, string] {
	return func(yield func(option, value string) bool) {
		for i, arg := range args[min(1, len(args)):] {
			if !yield(strings.TrimLeft(args[i], "-"), arg) {
				return
			}
		}
	}
}

// statesOfOthers finds in QEMU's arguments what has a state that is not QEMU's.
func statesOfOthers(args []string) []string {
	var found []string
	for option, value := range options(args) {
		fields := strings.Split(value, ",")
		switch {
		case (option == "virtfs" || option == "fsdev") && slices.Contains(fields, "path=/nix/store"):
			// Mounted, it forbids migration, and nothing can unmount this one.
			found = append(found, "its /nix/store is a share (9p) of the host's\nhint: set prebuild.storeImage, or virtualisation.useNixStoreImage, to true")
		case option == "device" && strings.HasPrefix(value, "vhost-user-"):
			found = append(found, fmt.Sprintf("%s keeps a state of its own", fields[0]))
		}
	}
	return found
}

// memoryObstacles finds in QEMU's arguments what keeps the guest's memory from
// being a file of ours.
func memoryObstacles(args []string) []string {
	var found []string
	for option, value := range options(args) {
		fields := strings.Split(value, ",")
		switch {
		case option == "object" && strings.HasPrefix(value, "memory-backend-") && !strings.Contains(value, startcommand.RAMID):
			found = append(found, "the start script says where its memory is ("+fields[0]+")")
		case option == "numa":
			found = append(found, "the start script divides its memory (-numa)")
		}
	}
	return found
}

// outputs are options for what QEMU writes to, and guestWords what the guest reads:
// neither names what the machine is made of.
var (
	outputs    = []string{"chardev", "serial", "parallel", "debugcon", "D", "pidfile"}
	guestWords = []string{"append"}
)

// pathsIn are all words in arguments that could name files: QEMU, whose working
// directory is cwd, has more ways to write options than are worth telling apart.
func pathsIn(args []string, cwd string) []string {
	var paths []string
	for option, arg := range options(args) {
		if slices.Contains(outputs, option) || slices.Contains(guestWords, option) {
			continue
		}
		for _, value := range valuesIn(arg) {
			paths = append(paths, at(cwd, strings.TrimPrefix(value, "file:")))
		}
	}
	return paths
}

// at is an absolute path of what a process with that working directory means.
func at(cwd, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(cwd, path)
}

// valuesIn are an argument, the values of the options in it, and the strings in JSON.
func valuesIn(arg string) []string {
	values := []string{arg}
	// A comma in a value is written twice.
	const comma = "\x00"
	for _, field := range strings.Split(strings.ReplaceAll(arg, ",,", comma), ",") {
		_, value, ok := strings.Cut(field, "=")
		if !ok {
			value = field
		}
		values = append(values, strings.ReplaceAll(value, comma, ","))
	}
	for _, value := range slices.Clone(values) {
		var decoded any
		if text := strings.TrimPrefix(value, "json:"); strings.HasPrefix(text, "{") && json.Unmarshal([]byte(text), &decoded) == nil {
			values = append(values, stringsIn(decoded)...)
		}
	}
	return values
}

func stringsIn(decoded any) (all []string) {
	switch v := decoded.(type) {
	case string:
		all = append(all, v)
	case []any:
		for _, e := range v {
			all = append(all, stringsIn(e)...)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			all = append(all, stringsIn(v[key])...)
		}
	}
	return all
}

// fatObstacles finds disks in QEMU's arguments that it makes of a directory of the
// host's, whose files may be others by the time that the guest reads them.
func fatObstacles(args []string) (found []string) {
	isFAT := func(value string) bool { return value == "vvfat" || strings.HasPrefix(value, "fat:") }
	for option, arg := range options(args) {
		if !slices.Contains(guestWords, option) && slices.ContainsFunc(valuesIn(arg), isFAT) {
			found = append(found, "it has a directory of the host's as a disk (fat:)")
		}
	}
	return found
}

// normalise gives names to what differs between runs of the same machine.
func (r run) normalise(args []string, dirs machine.Dirs, env []string) []string {
	names := map[string]string{dirs.State: "@state@", dirs.Shared: "@shared@"}
	if state, err := filepath.EvalSymlinks(dirs.State); err == nil {
		names[state] = "@state@"
	}
	if r.state.RAM != "" {
		names[r.state.RAMArgument()] = "@ram@"
	}
	if r.state.Disk != "" {
		names[r.state.Disk] = "@disk@"
	}
	for _, v := range env {
		if name, path, _ := strings.Cut(v, "="); strings.HasPrefix(name, "QEMU_VDE_SOCKET_") && path != "" {
			names[path] = "@" + name + "@"
		}
	}
	var pairs []string
	for _, path := range slices.SortedFunc(maps.Keys(names), func(a, b string) int { return len(b) - len(a) }) {
		pairs = append(pairs, path, names[path])
	}
	replacer := strings.NewReplacer(pairs...)
	var out []string
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-S", "-no-reboot": // of no consequence to the hardware
		case "-incoming":
			i++
		default:
			out = append(out, replacer.Replace(args[i]))
		}
	}
	return out
}

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
