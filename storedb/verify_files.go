package storedb

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"vm-prebuild/nar"
	"vm-prebuild/nar/storepath"
	"vm-prebuild/nar/tree"
)

// readPaths reads all valid paths, large ones first, so that none of them is
// left for one worker at the end.
func (v *verifier) readPaths(ctx context.Context) error {
	var storeStat unix.Stat_t
	if err := unix.Fstat(int(v.store.Fd()), &storeStat); err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	order := make([]*PathInfo, len(v.infos))
	parts := make([]string, len(v.infos))
	byPart := make(map[string]string, len(v.infos))
	for i := range v.infos {
		order[i], parts[i] = &v.infos[i], hashPart(v.infos[i].Path)
		byPart[parts[i]] = v.infos[i].Path
		v.narBytes += v.infos[i].NarSize
	}
	slices.SortStableFunc(order, func(a, b *PathInfo) int { return cmp.Compare(b.NarSize, a.NarSize) })
	scanner := nar.NewReferenceScanner(parts)
	progress := Progress{Phase: PhaseVerify, TotalPaths: len(order), TotalBytes: v.narBytes}
	v.Progress(progress)

	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(v.Jobs)
	for _, info := range order {
		group.Go(func() error {
			p := &pathVerifier{verifier: v, info: info, owner: storeStat.Uid, byPart: byPart}
			if err := p.run(ctx, scanner.Another()); err != nil {
				return err
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			progress.Paths++
			progress.Bytes += info.NarSize
			v.Progress(progress)
			return nil
		})
	}
	return group.Wait()
}

// hashPart is that of a checked store path.
func hashPart(path string) string { return baseName(path)[:storepath.HashPartLen] }

// pathVerifier verifies one path.
type pathVerifier struct {
	*verifier
	info   *PathInfo
	owner  uint32            // of the store directory
	byPart map[string]string // valid paths by hash part
}

// run only fails if ctx ends.
func (p *pathVerifier) run(ctx context.Context, scanner *nar.ReferenceScanner) error {
	base := baseName(p.info.Path)
	contents := &contents{ctx: ctx, hash: sha256.New(), scanner: scanner}
	metadata := &metadata{base: base, owner: p.owner}
	err := nar.DumpVisit(contents, p.store, base, metadata.visit)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var st unix.Stat_t
	if err != nil && errors.Is(unix.Fstatat(int(p.store.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW), unix.ENOENT) {
		p.find(KindMissing, p.info.Path, "valid, but it does not exist")
		return nil
	}
	if err != nil {
		p.find(KindUnread, p.info.Path, "%v", err)
		return nil
	}
	p.compare(contents)
	if isDerivation(p.info.Path) {
		p.compareOutputs(base)
	} else {
		p.compareReferences(scanner.Found())
	}
	p.noteMetadata(metadata)
	return nil
}

// contents is what an archive is written to.
type contents struct {
	ctx     context.Context
	hash    hash.Hash
	scanner *nar.ReferenceScanner
	size    int64
}

func (c *contents) Write(data []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	c.size += int64(len(data))
	_, _ = c.hash.Write(data)    // these two
	_, _ = c.scanner.Write(data) // never fail
	return len(data), nil
}

func (p *pathVerifier) compare(c *contents) {
	got := Hash(c.hash.Sum(nil))
	switch want := p.info; {
	case want.NarHash == Hash{}:
		p.find(KindUnhashed, want.Path, "no hash is registered; that of the contents is %s", got)
	case got != want.NarHash:
		p.find(KindModified, want.Path, "the contents have hash %s (%d bytes), registered is %s (%d bytes)", got, c.size, want.NarHash, want.NarSize)
	case want.NarSize == 0:
		p.find(KindUnhashed, want.Path, "no size is registered; that of the contents is %d bytes", c.size)
	case c.size != want.NarSize:
		p.find(KindModified, want.Path, "the contents have %d bytes, registered are %d", c.size, want.NarSize)
	}
}

// compareReferences compares the references that have been found with those that
// are registered. Derivations are not asked: they name their own outputs, which
// they do not refer to.
//
// Nix looks for references in what it has built, and so do we. What it has not
// built but added, sources for instance, refers to what it was said to. So a
// reference need not be in the contents, and contents with a content address
// may have more.
func (p *pathVerifier) compareReferences(found []string) {
	registered := make(map[string]bool, len(p.info.References))
	for _, path := range p.info.References {
		registered[hashPart(path)] = true
	}
	for _, part := range found {
		if registered[part] {
			delete(registered, part)
			continue
		}
		finding := Finding{SeverityError, KindReference, p.info.Path, "the contents refer to " + p.byPart[part] + ", which is not a registered reference"}
		if p.info.CA != "" {
			finding.Severity = SeverityInformation
		}
		p.add(finding)
	}
	for _, path := range p.info.References {
		if registered[hashPart(path)] {
			p.find(KindUnused, p.info.Path, "the contents do not mention the registered reference %s", path)
		}
	}
}

func (p *pathVerifier) compareOutputs(base string) {
	want, err := derivationOutputs(int(p.store.Fd()), base)
	if err != nil {
		p.find(KindOutputs, p.info.Path, "%v", err)
		return
	}
	registered := p.outputs[p.info.Path]
	for _, o := range want {
		i := slices.IndexFunc(registered, func(r output) bool { return r.name == o.name })
		if i < 0 {
			p.find(KindOutputs, p.info.Path, "output %q is not registered", o.name)
		} else if registered[i].path != o.path {
			p.find(KindOutputs, p.info.Path, "output %q is %s, registered is %s", o.name, o.path, registered[i].path)
		}
	}
	for _, r := range registered {
		if !slices.ContainsFunc(want, func(o output) bool { return o.name == r.name }) {
			p.find(KindOutputs, p.info.Path, "the registered output %q is not in it", r.name)
		}
	}
}

// deviation is what many files may have in common.
type deviation struct {
	count int
	first string // of the files, and what it has
}

func (d *deviation) note(path func() string, format string, args ...any) {
	if d.count++; d.count == 1 {
		d.first = path() + ": " + fmt.Sprintf(format, args...)
	}
}

// metadata is what is found in the modes, times and owners of one path.
type metadata struct {
	base                string
	owner               uint32
	modes, times, owned deviation
}

func (m *metadata) visit(names []string, st *unix.Stat_t) {
	path := func() string { return strings.Join(append([]string{m.base}, names...), "/") }
	if st.Uid != m.owner {
		m.owned.note(path, "%d", st.Uid)
	}
	if st.Mtim != (unix.Timespec{Sec: tree.Mtime}) {
		m.times.note(path, "%d.%09d", st.Mtim.Sec, st.Mtim.Nsec)
	}
	kind, mode := st.Mode&unix.S_IFMT, st.Mode&^unix.S_IFMT
	if kind != unix.S_IFLNK && mode != tree.ModeExecutable && (mode != tree.ModeRegular || kind == unix.S_IFDIR) {
		m.modes.note(path, "%04o", mode)
	}
}

func (p *pathVerifier) noteMetadata(m *metadata) {
	for _, d := range []struct {
		deviation
		what string
	}{{m.modes, "a mode other than 0444 or 0555"}, {m.times, "a modification time other than 1"}, {m.owned, "another owner than the store directory"}} {
		if d.count > 0 {
			p.find(KindMetadata, p.info.Path, "%s: %d of its files and directories, the first %s", d.what, d.count, d.first)
		}
	}
}
