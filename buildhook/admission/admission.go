// Package admission lets tests run within a budget of memory and cores that many
// processes of a machine share. [Enter] is its entry point.
//
// Each process has a ticket in a directory: a file with what it needs, locked as
// long as the process lives. Whoever waits reads all tickets, under a lock of the
// directory, whenever one of them changes or goes, and starts when it is its turn.
// There is no server, and nothing to clean up after a process that was killed: the
// kernel releases its lock, and a ticket that nobody has locked counts for nothing.
package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Budget is what all tests that run may have together.
type Budget struct {
	MemoryMiB int `json:"memoryMiB"`
	Cores     int `json:"cores"`
}

// Demand is what a test needs.
type Demand struct {
	Machines  int `json:"machines"`
	MemoryMiB int `json:"memoryMiB"` // of all machines
	Cores     int `json:"cores"`     // of all machines
}

// Fits says whether there is room for d beside what is used.
func (b Budget) Fits(used, d Demand) bool {
	return used.MemoryMiB+d.MemoryMiB <= b.MemoryMiB && used.Cores+d.Cores <= b.Cores
}

// State says what the process of a ticket does.
type State string

// The states.
const (
	Waiting State = "waiting"
	Running State = "running"
)

// Ticket is a process and what it needs.
type Ticket struct {
	Number int       `json:"number"` // in the order of arrival
	PID    int       `json:"pid"`
	Name   string    `json:"name"` // of what it runs
	State  State     `json:"state"`
	Since  time.Time `json:"since"` // when it came into this state
	Demand Demand    `json:"demand"`
	Budget Budget    `json:"budget"` // by which it judges
}

// maxPassed is for how long later tests may start before one that does not fit yet.
// After that the others wait until there is room for it.
const maxPassed = time.Minute

const (
	lockName     = "lock"
	ticketSuffix = ".ticket"
	maxTicket    = 64 << 10 // bytes
)

// Place is what a process has when it has been admitted.
type Place struct {
	file *os.File
}

// Enter waits until name, which needs d, may run beside what runs already
// according to the tickets in dir. The directory is made if it does not exist. If
// it has to wait, waiting is called, once, with the tickets before its own, and with
// what keeps it from being told of changes, so that it looks for them every so often.
func Enter(ctx context.Context, dir, name string, d Demand, b Budget, waiting func(before []Ticket, unwatched error)) (*Place, error) {
	if !b.Fits(Demand{}, d) {
		return nil, fmt.Errorf("%s needs %d MiB and %d cores, more than the %d MiB and %d cores that there are", name, d.MemoryMiB, d.Cores, b.MemoryMiB, b.Cores)
	}
	q, err := open(dir)
	if err != nil {
		return nil, err
	}
	defer q.lock.Close()
	watch := newWatch(dir) // before the ticket is there: nothing is missed
	defer watch.close()
	t := Ticket{PID: os.Getpid(), Name: name, State: Waiting, Since: time.Now(), Demand: d, Budget: b}
	file, err := q.add(ctx, &t)
	if err != nil {
		return nil, err
	}
	p := &Place{file}
	for first := true; ; first = false {
		before, admitted, err := q.try(ctx, file, t)
		if admitted {
			return p, nil
		}
		if err == nil {
			if first {
				waiting(before, watch.problem)
			}
			err = watch.wait(ctx)
		}
		if err != nil {
			p.Leave()
			return nil, err
		}
	}
}

// Leave makes room for others.
func (p *Place) Leave() {
	_ = os.Remove(p.file.Name()) // if it stays, it is known to be nobody's
	p.file.Close()
}

// List returns the tickets in dir, in the order of their numbers.
func List(dir string) ([]Ticket, error) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) { // nobody has built anything yet
		return nil, nil
	}
	q, err := open(dir)
	if err != nil {
		return nil, err
	}
	defer q.lock.Close()
	ctx, cancel := context.WithTimeoutCause(context.Background(), lockLimit,
		fmt.Errorf("somebody has held %s for %v\nhint: 'fuser %[1]s' says who; is that process stopped?", q.lock.Name(), lockLimit))
	defer cancel()
	var tickets []Ticket
	err = q.locked(ctx, func() error {
		tickets, _, err = q.read(0)
		return err
	})
	return tickets, err
}

// queue is a directory of tickets.
type queue struct {
	dir  string
	lock *os.File
}

func open(dir string) (*queue, error) {
	err := os.MkdirAll(dir, 0o700)
	var lock *os.File
	if err == nil {
		lock, err = os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	}
	if errors.Is(err, os.ErrPermission) {
		err = fmt.Errorf("%w\nhint: it belongs to the user that Nix builds as, root as a rule", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open the queue of tests: %w", err)
	}
	return &queue{dir, lock}, nil
}

// Times for the lock of the directory, which is held for as long as it takes to read
// some small files. Who only looks does not wait for ever; a test does, since to fail
// would be worse, and the lock is free when its holder dies.
const (
	lockPoll  = 2 * time.Millisecond
	lockLimit = 30 * time.Second
)

// locked calls f while no other process looks at the queue, for which it waits until
// ctx ends.
func (q *queue) locked(ctx context.Context, f func() error) error {
	for {
		err := unix.Flock(int(q.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock the queue of tests: %w", err)
		}
		if err := pause(ctx, lockPoll); err != nil {
			return fmt.Errorf("lock the queue of tests: %w", err)
		}
	}
	return errors.Join(f(), unix.Flock(int(q.lock.Fd()), unix.LOCK_UN))
}

// read returns the tickets of living processes but own, and the highest number.
// What is left of others is removed.
func (q *queue) read(own int) (tickets []Ticket, last int, err error) {
	entries, err := os.ReadDir(q.dir)
	if err != nil {
		return nil, 0, fmt.Errorf("read the queue of tests: %w", err)
	}
	for _, entry := range entries {
		digits, ok := strings.CutSuffix(entry.Name(), ticketSuffix)
		number, err := strconv.Atoi(digits)
		if !ok || err != nil {
			continue
		}
		last = max(last, number)
		if number == own {
			continue
		}
		t, alive, err := q.ticket(entry.Name())
		if err != nil {
			return nil, 0, err
		}
		if alive {
			t.Number = number
			tickets = append(tickets, t)
		}
	}
	slices.SortFunc(tickets, func(a, b Ticket) int { return a.Number - b.Number })
	return tickets, last, nil
}

func (q *queue) ticket(name string) (t Ticket, alive bool, err error) {
	name = filepath.Join(q.dir, name)
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return t, false, nil // its owner has just left
	}
	if err != nil {
		return t, false, fmt.Errorf("read the queue of tests: %w", err)
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		_ = os.Remove(name) // the next one tries again
		return t, false, nil
	}
	text := make([]byte, maxTicket)
	n, err := f.Read(text)
	if err == nil {
		err = json.Unmarshal(text[:n], &t)
	}
	if err != nil {
		return t, false, fmt.Errorf("read the queue of tests: %s: %w\nhint: if no test is running, remove it", name, err)
	}
	return t, true, nil
}

// add makes a ticket, and gives it its number.
func (q *queue) add(ctx context.Context, t *Ticket) (file *os.File, err error) {
	err = q.locked(ctx, func() error {
		_, last, err := q.read(0)
		if err != nil {
			return err
		}
		t.Number = last + 1
		file, err = os.OpenFile(filepath.Join(q.dir, fmt.Sprintf("%010d%s", t.Number, ticketSuffix)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		}
		if err == nil {
			err = t.write(file)
		}
		if err != nil {
			return fmt.Errorf("join the queue of tests: %w", err)
		}
		return nil
	})
	if err != nil && file != nil {
		(&Place{file}).Leave()
	}
	return file, err
}

func (t *Ticket) write(file *os.File) error {
	text, err := json.Marshal(t)
	if err == nil {
		_, err = file.WriteAt(text, 0)
	}
	if err == nil {
		err = file.Truncate(int64(len(text)))
	}
	return err
}

// try lets t run if it is its turn. Otherwise it returns the tickets before it.
func (q *queue) try(ctx context.Context, file *os.File, t Ticket) (before []Ticket, admitted bool, err error) {
	err = q.locked(ctx, func() error {
		others, _, err := q.read(t.Number)
		if err != nil {
			return err
		}
		if before, admitted = turn(t, others, time.Now()); !admitted {
			return nil
		}
		t.State, t.Since = Running, time.Now()
		if err := t.write(file); err != nil {
			return fmt.Errorf("leave the queue of tests: %w", err)
		}
		return nil
	})
	return before, admitted && err == nil, err
}

// turn says whether t may run: it fits beside what runs, and nobody who came
// earlier could run, or has let others pass for long enough.
func turn(t Ticket, others []Ticket, now time.Time) (before []Ticket, ok bool) {
	var used Demand
	for _, o := range others {
		if o.State == Running {
			used.MemoryMiB += o.Demand.MemoryMiB
			used.Cores += o.Demand.Cores
			before = append(before, o)
		}
	}
	ok = t.Budget.Fits(used, t.Demand)
	for _, o := range others {
		if o.State == Waiting && o.Number < t.Number {
			before = append(before, o)
			if o.Budget.Fits(used, o.Demand) || now.Sub(o.Since) >= maxPassed {
				ok = false
			}
		}
	}
	return before, ok
}
