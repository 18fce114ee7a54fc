package warm

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/machine"
)

// commandLimit is how long the guest may take for one of the commands here.
const commandLimit = 30 * time.Second

// wakeProgram makes the system calls that a restored guest needs; wake/wake.c tells
// why that takes a program.
//
//go:embed wake/wake.x86_64
var wakeProgram []byte

// guest is what has been done to a guest before it was saved, and is to be undone.
type guest struct {
	Program string  `json:"program"` // where wakeProgram is in the guest
	Mounts  []mount `json:"mounts"`  // what was unmounted, in the order of mounting
	Hook    bool    `json:"hook"`    // the guest has the unit hookUnit
}

// mount is a share of the host's that a guest has mounted.
type mount struct {
	Source string   `json:"source"`
	Target string   `json:"target"`
	Type   string   `json:"type"`
	Flags  []string `json:"flags"` // of the mount: ro, nosuid, …
	Data   string   `json:"data"`  // of the file system
}

// hookUnit is started in restored guests that have it.
const hookUnit = "warm-restored.target"

// prepare readies a guest to be saved: shares of the host are unmounted, and the
// program has the shell's console that wakes the guest. With an error it returns
// what it has done until then.
func prepare(ctx context.Context, sh machine.Shell) (g guest, err error) {
	text, err := run(ctx, sh, "reading its mounts", "cat /proc/self/mountinfo")
	if err != nil {
		return g, err
	}
	mounted, err := shares(text)
	if err != nil {
		return g, err
	}
	if g.Program, err = install(ctx, sh); err != nil {
		return g, err
	}
	text, err = run(ctx, sh, "looking for "+hookUnit, "if systemctl cat "+hookUnit+" >/dev/null 2>&1; then echo yes; else echo no; fi")
	if err != nil {
		return g, err
	}
	g.Hook = text == "yes\n"
	for _, m := range slices.Backward(mounted) {
		// Something may still be reading from it, for a moment.
		target := machine.Quote(m.Target)
		_, err := run(ctx, sh, "unmounting "+m.Target+", which is a share of the host's",
			"for _ in 1 2 3 4 5 6 7 8 9; do ! umount "+target+" 2>/dev/null || exit 0; sleep 0.2; done; umount "+target)
		if err != nil {
			return g, err
		}
		g.Mounts = slices.Insert(g.Mounts, 0, m)
	}
	// What is on the disk a while after a boot is there when a restored machine
	// crashes.
	if _, err = run(ctx, sh, "writing back its disks", "sync"); err != nil {
		return g, err
	}
	return g, g.sleep(ctx, sh)
}

// sleep gives the console of the guest's shell to the program.
func (g guest) sleep(ctx context.Context, sh machine.Shell) error {
	sleeper, ok := sh.(machine.Sleeper)
	if !ok {
		return errors.New("its shell cannot be given to a program")
	}
	return g.ask(ctx, "putting the guest's shell to sleep", "ready", func(ctx context.Context) (string, error) {
		return sleeper.Sleep(ctx, machine.Quote(g.Program)+" serve")
	})
}

// ask has the program say what it should.
func (g guest) ask(ctx context.Context, what, want string, ask func(context.Context) (string, error)) error {
	ctx, cancel := limited(ctx)
	defer cancel()
	switch answer, err := ask(ctx); {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case answer != want:
		return fmt.Errorf("%s: %s says %q", what, g.Program, answer)
	}
	return nil
}

// limited returns the context of one thing that the guest does.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, commandLimit, fmt.Errorf("the guest needs more than %v", commandLimit))
}

// run runs a command that must succeed and returns its output.
func run(ctx context.Context, sh machine.Shell, what, command string) (string, error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	r, err := sh.Run(ctx, command, 0)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if r.Status != 0 {
		return "", fmt.Errorf("%s failed with exit code %d: %s", what, r.Status, bytes.TrimSpace(r.Stderr))
	}
	return machine.Text(r.Stdout), nil
}

// shares finds the host's shares in the text of /proc/self/mountinfo, whose lines are
//
//	36 35 0:30 ROOT TARGET FLAGS… TAGS… - TYPE SOURCE OPTIONS
func shares(text string) ([]mount, error) {
	var found []mount
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		i := slices.Index(fields, "-")
		if i < 6 || len(fields) < i+4 {
			return nil, fmt.Errorf("the guest's /proc/self/mountinfo has the line %q", line)
		}
		root, target, flags := fields[3], unescape(fields[4]), fields[5]
		kind, source, options := fields[i+1], unescape(fields[i+2]), unescape(fields[i+3])
		if kind != "9p" && kind != "virtiofs" {
			continue
		}
		if root != "/" {
			return nil, &machine.UnsavableError{Reason: fmt.Sprintf("%s is a part (%s) of a share of the host's, and could not be mounted again", target, unescape(root))}
		}
		m := mount{Source: source, Target: target, Type: kind, Flags: strings.Split(flags, ",")}
		var data []string
		for option := range strings.SplitSeq(options, ",") {
			switch value, isCache := strings.CutPrefix(option, "cache="); {
			case mountFlags[option] != 0 || option == "rw":
				// Of the file system, and of the mount, too.
				m.Flags = append(m.Flags, option)
			case isCache && hexadecimal.MatchString(value):
				// Linux 6.4 and later prints what it would not read.
				data = append(data, "cache=0x"+value)
			default:
				data = append(data, option)
			}
		}
		m.Data = strings.Join(data, ",")
		found = append(found, m)
	}
	return found, nil
}

var hexadecimal = regexp.MustCompile(`^[0-9a-f]+$`)

// unescape undoes what the kernel does to white space and backslashes: \040.
func unescape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if s[0] == '\\' && len(s) >= 4 {
			if c, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				s = s[4:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}

// escape does for words of a line what unescape undoes.
func escape(word string) string {
	var b strings.Builder
	for i := range len(word) {
		if c := word[i]; c <= ' ' || c == '\\' {
			fmt.Fprintf(&b, "\\%03o", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// calledWrongly is the exit code with which wakeProgram shows that it runs.
const calledWrongly = "255"

// install puts wakeProgram where the guest can execute it, in memory if it can.
func install(ctx context.Context, sh machine.Shell) (string, error) {
	streamer, ok := sh.(machine.Streamer)
	if !ok {
		return "", errors.New("its shell takes no files")
	}
	const command = `for d in /run /dev/shm /tmp /var/tmp /root; do
  f=$d/.vm-prebuild-wake
  if [ -d "$d" ] && base64 -d >"$f" <<<"$p" && chmod 700 "$f"; then
    s=0; "$f" nothing || s=$?
    if [ $s = ` + calledWrongly + ` ]; then echo "$f"; exit 0; fi
  fi 2>/dev/null
  rm -f "$f"
done
exit 1`
	// A variable of bash's cannot hold NUL bytes.
	encoded := base64.StdEncoding.EncodeToString(wakeProgram)
	r, err := streamer.Feed(ctx, "p=$(cat)\n"+command, strings.NewReader(encoded), int64(len(encoded)))
	if err != nil {
		return "", fmt.Errorf("installing a program in the guest: %w", err)
	}
	if r.Status != 0 {
		return "", fmt.Errorf("the guest can execute a program nowhere\nhint: warm machines need an x86_64 guest with a writable directory that is not mounted noexec")
	}
	return strings.TrimSpace(machine.Text(r.Stdout)), nil
}

// quickReading is how long a reading of the guest's clock may take: by half of it the
// clock can be wrong afterwards.
const quickReading = 80 * time.Millisecond

// wake gives a restored guest entropy that no other clone has, tells it what time it
// is, mounts what prepare has unmounted, and gives its console back to the shell.
func (g guest) wake(ctx context.Context, sh machine.Shell) error {
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails
	return g.goOn(ctx, sh, "entropy", hex.EncodeToString(seed))
}

// goOn undoes what prepare has done to the guest, and sets its clock, which stood
// still as long as the guest did. The words are what the program is to do besides.
func (g guest) goOn(ctx context.Context, sh machine.Shell, words ...string) error {
	sleeper, ok := sh.(machine.Sleeper)
	if !ok {
		return errors.New("its shell was not given to a program")
	}
	slow, err := g.lag(ctx, sleeper)
	if err != nil {
		return err
	}
	if slow.Abs() > quickReading/2 { // otherwise it may be right
		words = append(words, "step", strconv.FormatInt(slow.Nanoseconds(), 10))
	}
	for _, m := range g.Mounts {
		words = append(words, "mount", m.Source, m.Target, m.Type, strconv.FormatUint(m.flags(), 10), m.Data)
	}
	words = append(words, "unlink", g.Program, "exit")
	for i, word := range words {
		words[i] = escape(word)
	}
	return g.ask(ctx, "setting the guest's clock and mounting its shares", "done", func(ctx context.Context) (string, error) {
		return sleeper.Ask(ctx, strings.Join(words, " "))
	})
}

// hookLimit is how long what users have made part of hookUnit may take.
const hookLimit = 5 * time.Minute

// runHook starts hookUnit in a restored guest that has it.
func (g guest) runHook(ctx context.Context, sh machine.Shell) error {
	if !g.Hook {
		return nil
	}
	r, err := sh.Run(ctx, "systemctl start "+hookUnit, hookLimit)
	switch {
	case err != nil:
		return fmt.Errorf("starting %s: %w", hookUnit, err)
	case r.Status == 124:
		return fmt.Errorf("starting %s took more than %v", hookUnit, hookLimit)
	case r.Status != 0:
		return fmt.Errorf("starting %s failed with exit code %d: %s", hookUnit, r.Status, bytes.TrimSpace(r.Stderr))
	}
	return nil
}

// lag is by how much the guest's clock is slow. Of the first readings one is slow, as
// all is that an emulated CPU does the first time; on a busy host it takes more.
func (g guest) lag(ctx context.Context, sleeper machine.Sleeper) (slow time.Duration, err error) {
	ctx, cancel := limited(ctx)
	defer cancel()
	best := time.Duration(math.MaxInt64)
	for i := 0; i < 2 || best > quickReading; i++ {
		before := time.Now()
		answer, err := sleeper.Ask(ctx, "time")
		if err != nil {
			return 0, fmt.Errorf("reading the guest's clock: %w", err)
		}
		took := time.Since(before)
		var seconds, nanoseconds int64
		if _, err := fmt.Sscanf(answer, "%d %d", &seconds, &nanoseconds); err != nil {
			return 0, fmt.Errorf("the guest's clock says %q", answer)
		}
		if took < best {
			best, slow = took, before.Add(took/2).Sub(time.Unix(seconds, nanoseconds))
		}
	}
	return slow, nil
}

// mountFlags are the options of mounts that are bits of mount(2)'s flags.
var mountFlags = map[string]uint64{
	"rw": 0, "ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC, "mand": unix.MS_MANDLOCK, "lazytime": unix.MS_LAZYTIME,
	"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME, "nosymfollow": unix.MS_NOSYMFOLLOW,
}

// flags are those that mount(2) takes to mount it again.
func (m mount) flags() (flags uint64) {
	for _, flag := range m.Flags {
		flags |= mountFlags[flag]
	}
	if flags&(unix.MS_RELATIME|unix.MS_NOATIME) == 0 {
		flags |= unix.MS_STRICTATIME // what no option stands for
	}
	return flags
}
