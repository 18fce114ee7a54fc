package storedb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar/tree"
)

// A placer copies files, directories and symbolic links from one directory to
// another, canonicalising their metadata.
//
// The unit of work is one entry of one directory. Each worker has a stack of
// the directories it has made whose entries have not all been begun, and takes
// the next entry of the topmost one; with none left, it takes one from the
// bottom of another's stack, which at first is the root. So workers keep out of
// each other's directories, where they would wait for the kernel's locks, and
// still share a single large tree in the end; and no more directories are open
// than the trees are deep, times the workers.
type placer struct {
	method Method
	stats  placeStats
	done   func(i int) // called when entry i of the root directory is complete

	cloneFrom  int64 // bytes that a file must have for a reflink
	modeAtOnce bool  // files get their mode when they are made: the umask takes nothing away

	mu      sync.Mutex
	changed sync.Cond      // one of those below has changed
	stacks  [][]*directory // of each worker: with entries not yet begun
	open    map[*directory]bool
	stopped bool

	devices sync.Map // of source device numbers: *abilities
	inodes  sync.Map // of inode: *firstLink
}

// placeStats counts files by how they were made.
type placeStats struct{ reflinked, copied, hardLinked atomic.Int64 }

// directory is one that is being copied.
type directory struct {
	parent     *directory // nil for the root
	index      int        // of this directory in parent
	depth      int
	src, dst   int // open
	entries    []entry
	next       int // the first entry not yet begun
	unfinished int // entries not yet complete
}

// entry is a name in a directory.
type entry struct {
	from, to string // in the source and in the destination: the same below the root
	kind     uint8  // as in dirent(5): DT_UNKNOWN if only opening it would tell
}

type inode struct{ dev, ino uint64 }

// firstLink is the copy of a file that has several links in the source.
type firstLink struct {
	mu   sync.Mutex // held while the copy is made
	path string     // of the copy, relative to the root's destination; empty if there is none
}

type worker struct {
	*placer
	number int
	buf    []byte
}

// place copies the entries from of the open directory src to the names to in
// the open directory dst, where they do not exist yet, with at most the given number
// of workers. After an error, what has been made is left to the caller to remove.
func (p *placer) place(ctx context.Context, src, dst int, from, to []string, jobs int) error {
	btrfs := sameBtrfs(src, dst)
	if btrfs && p.method != MethodCopy {
		// All that has a name in a subvolume lies in one tree, what is new side by
		// side. Two who write to it wait for each other's locks, and take longer
		// than one, who leaves a processor to the kernel and to SQLite.
		jobs = 1
	}
	p.cloneFrom = p.cloneMin(btrfs)
	p.changed.L = &p.mu
	p.open = map[*directory]bool{}
	p.stacks = make([][]*directory, jobs)
	p.modeAtOnce = umask()&tree.ModeExecutable == 0
	root := &directory{src: src, dst: dst, entries: make([]entry, len(from)), unfinished: len(from)}
	for i := range from {
		root.entries[i] = entry{from: from[i], to: to[i], kind: unix.DT_UNKNOWN}
	}
	if len(from) > 0 {
		(&worker{placer: p}).push(root)
	}
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.stopped = true
		p.changed.Broadcast()
	})
	defer stop()
	for number := range jobs {
		group.Go(func() error {
			w := &worker{placer: p, number: number}
			for {
				d, i := w.claim()
				if d == nil {
					return ctx.Err()
				}
				if err := w.entry(ctx, d, i); err != nil {
					return err
				}
			}
		})
	}
	err := group.Wait()
	for d := range p.open {
		if d != root {
			tree.CloseRead(d.src, d.dst)
		}
	}
	return err
}

// push makes the entries of d available, first of all to w.
func (w *worker) push(d *directory) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[d] = true
	if len(d.entries) > 0 {
		w.stacks[w.number] = append(w.stacks[w.number], d)
	}
	w.changed.Broadcast()
}

// claim returns the next entry to copy. It waits while there is none but others
// may turn up; it returns nil when all is copied or copying is to stop.
func (w *worker) claim() (*directory, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.open) > 0 && !w.stopped {
		for k := range w.stacks {
			stack := &w.stacks[(w.number+k)%len(w.stacks)]
			if len(*stack) == 0 {
				continue
			}
			at := 0
			if k == 0 {
				at = len(*stack) - 1
			}
			d := (*stack)[at]
			i := d.next
			if d.next++; d.next == len(d.entries) {
				*stack = slices.Delete(*stack, at, at+1)
			}
			return d, i
		}
		w.changed.Wait()
	}
	return nil, 0
}

// complete notes that entry i of d is done.
func (p *placer) complete(d *directory, i int) error {
	if d.parent == nil {
		p.done(i)
	}
	p.mu.Lock()
	d.unfinished--
	last := d.unfinished == 0
	p.mu.Unlock()
	if last {
		return p.finish(d)
	}
	return nil
}

// finish ends a directory whose entries are all complete.
func (p *placer) finish(d *directory) error {
	if d.parent != nil {
		if err := seal(d); err != nil {
			return err
		}
	}
	p.mu.Lock()
	delete(p.open, d)
	p.changed.Broadcast()
	p.mu.Unlock()
	if d.parent == nil {
		return nil
	}
	tree.CloseRead(d.src, d.dst)
	return p.complete(d.parent, d.index)
}

// seal gives a directory its metadata, which is last because each new entry
// changes its time, and needs it to be writable.
func seal(d *directory) error {
	if err := unix.Fchmod(d.dst, tree.ModeExecutable); err != nil {
		return d.parent.entryError(d.index, "chmod", err)
	}
	if err := tree.SetTime(d.dst); err != nil {
		return d.parent.entryError(d.index, "set time of", err)
	}
	return nil
}

// entry copies entry i of d. What a file is, is asked of the open file: its name
// may have become another's since the directory was read.
func (w *worker) entry(ctx context.Context, d *directory, i int) error {
	if d.entries[i].kind == unix.DT_LNK {
		return w.symlink(d, i)
	}
	fd, err := tree.Open(d.src, d.entries[i].from, tree.OpenFlags, 0)
	if errors.Is(err, unix.ELOOP) {
		return w.symlink(d, i)
	}
	if err != nil {
		return d.entryError(i, "open", err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err != nil {
		tree.CloseRead(fd)
		return d.entryError(i, "stat", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return w.directory(d, i, fd)
	case unix.S_IFREG:
		defer tree.CloseRead(fd)
		return w.regular(ctx, d, i, fd, &st)
	}
	tree.CloseRead(fd)
	return d.entryError(i, "copy", errors.New("not a regular file, directory or symbolic link"))
}

func (w *worker) symlink(d *directory, i int) error {
	buf := w.buffer()[:unix.PathMax]
	e := d.entries[i]
	n, err := unix.Readlinkat(d.src, e.from, buf)
	if err != nil {
		return d.entryError(i, "readlink", err)
	}
	if err := unix.Symlinkat(string(buf[:n]), d.dst, e.to); err != nil {
		return d.entryError(i, "symlink", err)
	}
	if err := tree.SetTimeOfLink(d.dst, e.to); err != nil {
		return d.entryError(i, "set time of", err)
	}
	return w.complete(d, i)
}

// directory makes a directory and hands its entries to all workers. It owns src,
// the open source.
func (w *worker) directory(d *directory, i, src int) error {
	sub, err := w.enter(d, i, src)
	if err != nil {
		tree.CloseRead(src)
		return err
	}
	w.push(sub)
	if len(sub.entries) == 0 {
		return w.finish(sub)
	}
	return nil
}

// enter makes the directory that is entry i of d.
func (w *worker) enter(d *directory, i, src int) (*directory, error) {
	if d.depth == tree.MaxDepth {
		return nil, d.entryError(i, "copy", fmt.Errorf("nested deeper than %d directories", tree.MaxDepth))
	}
	entries, err := readEntries(src, w.buffer())
	if err != nil {
		return nil, d.entryError(i, "read", err)
	}
	name := d.entries[i].to
	if err := unix.Mkdirat(d.dst, name, 0o700); err != nil {
		return nil, d.entryError(i, "mkdir", err)
	}
	dst, err := tree.OpenDir(d.dst, name)
	if err != nil {
		return nil, d.entryError(i, "open new", err)
	}
	return &directory{
		parent: d, index: i, depth: d.depth + 1,
		src: src, dst: dst, entries: entries, unfinished: len(entries),
	}, nil
}

// regular copies the open file src, or links to the copy of it that there is.
func (w *worker) regular(ctx context.Context, d *directory, i, src int, st *unix.Stat_t) error {
	var err error
	switch {
	case w.method == MethodHardLink:
		err = w.link(d, i, src, st)
	case st.Nlink == 1:
		err = w.file(ctx, d, i, src, st)
	default:
		err = w.linked(ctx, d, i, src, st)
	}
	if err != nil {
		return err
	}
	return w.complete(d, i)
}

// link makes entry i of d another link to the open file src. As the two have
// everything in common, the source's metadata must be canonical already.
func (w *worker) link(d *directory, i, src int, st *unix.Stat_t) error {
	if mode := st.Mode &^ unix.S_IFMT; mode != tree.ModeRegular && mode != tree.ModeExecutable || st.Mtim.Sec != tree.Mtime {
		return d.entryError(i, "link", fmt.Errorf("its mode %04o or time is not that of a file in a store\n%s", mode, hintNoLink))
	}
	// By descriptor: the name may be another file's by now.
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", src), d.dst, d.entries[i].to, unix.AT_SYMLINK_FOLLOW)
	if err == nil {
		w.stats.hardLinked.Add(1)
		return nil
	}
	// Another file system, one without links, somebody else's file with
	// fs.protected_hardlinks set, too many links, or no /proc.
	if slices.Contains([]error{unix.EXDEV, unix.EPERM, unix.EMLINK, unix.EACCES, unix.ENOENT}, err) {
		err = fmt.Errorf("%w\n%s", err, hintNoLink)
	}
	return d.entryError(i, "link", err)
}

const hintNoLink = "hint: --method auto copies what cannot be linked"

// linked copies the first of several links to a file and links the others to
// that copy.
func (w *worker) linked(ctx context.Context, d *directory, i, src int, st *unix.Stat_t) error {
	v, _ := w.inodes.LoadOrStore(inode{st.Dev, st.Ino}, &firstLink{})
	first := v.(*firstLink)
	first.mu.Lock()
	defer first.mu.Unlock()
	if first.path != "" {
		err := unix.Linkat(d.root().dst, first.path, d.dst, d.entries[i].to, 0)
		if err == nil {
			w.stats.hardLinked.Add(1)
			return nil
		}
		// The file may have as many links as the file system allows, or lie
		// too deep for a path. A second copy then serves those that follow.
		if !errors.Is(err, unix.EMLINK) && !errors.Is(err, unix.ENAMETOOLONG) {
			return d.entryError(i, "link", err)
		}
	}
	if err := w.file(ctx, d, i, src, st); err != nil {
		return err
	}
	first.path = d.target(i)
	return nil
}

// file makes a copy of the open file src.
func (w *worker) file(ctx context.Context, d *directory, i, src int, st *unix.Stat_t) error {
	mode := uint32(tree.ModeRegular)
	if st.Mode&unix.S_IXUSR != 0 {
		mode = tree.ModeExecutable
	}
	dst, err := tree.Open(d.dst, d.entries[i].to, tree.CreateFlags, mode)
	if err != nil {
		return d.entryError(i, "create", err)
	}
	err = w.contents(ctx, dst, src, st)
	if err == nil && !w.modeAtOnce {
		err = unix.Fchmod(dst, mode)
	}
	if err == nil {
		err = tree.SetTime(dst)
	}
	if closeErr := unix.Close(dst); err == nil {
		err = closeErr // a network file system reports a full disk here
	}
	if err != nil {
		return d.entryError(i, "place", err)
	}
	return nil
}

// buffer is the worker's, for what it does at the moment.
func (w *worker) buffer() []byte {
	if w.buf == nil {
		w.buf = make([]byte, copyBuffer)
	}
	return w.buf
}

func (p *placer) abilities(dev uint64) *abilities {
	if a, ok := p.devices.Load(dev); ok {
		return a.(*abilities)
	}
	a, _ := p.devices.LoadOrStore(dev, &abilities{})
	return a.(*abilities)
}

func (d *directory) root() *directory {
	for d.parent != nil {
		d = d.parent
	}
	return d
}

// target is the path of entry i in the destination of the root.
func (d *directory) target(i int) string {
	if d.parent == nil {
		return d.entries[i].to
	}
	return d.parent.target(d.index) + "/" + d.entries[i].to
}

// source is the path of d below the source of the root.
func (d *directory) source() string {
	if d.parent == nil {
		return ""
	}
	return d.parent.source() + d.parent.entries[d.index].from + "/"
}

func (d *directory) entryError(i int, op string, err error) error {
	return &fs.PathError{Op: op, Path: d.source() + d.entries[i].from, Err: err}
}

// readEntries returns what is in the open directory dir, in no order, using buf.
func readEntries(dir int, buf []byte) (entries []entry, err error) {
	err = tree.EachEntry(dir, buf, func(name string, kind uint8) {
		entries = append(entries, entry{from: name, to: name, kind: kind})
	})
	return entries, err
}
