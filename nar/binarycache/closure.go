package binarycache

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"vm-prebuild/nar/narinfo"
)

// Bounds on a closure: a cache that makes up paths as it is asked for them must
// not be followed for ever, nor fill the memory with them.
const (
	maxPaths = 1 << 20
	maxText  = 64 << 20 // bytes of narinfos
)

// Closure returns what the cache says of the paths with the hash parts and of
// all that they refer to, directly or not, each after those that it refers to.
// It fails if the cache lacks one of them or says different things of one.
func (c *Cache) Closure(ctx context.Context, parts []string) ([]*narinfo.NarInfo, error) {
	found := map[string]*narinfo.NarInfo{} // nil for what is still to be asked for
	var mu sync.Mutex
	var next []string // what to ask for after those that are being asked for
	text := 0         // bytes of the narinfos so far
	add := func(part string) {
		if _, known := found[part]; !known {
			found[part] = nil
			next = append(next, part)
		}
	}
	for _, part := range parts {
		add(part)
	}
	for len(next) > 0 {
		ask := next
		next = nil
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(c.connections)
		for _, part := range ask {
			group.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				info, size, err := c.narInfo(ctx, part)
				if err != nil {
					return err
				}
				mu.Lock()
				defer mu.Unlock()
				found[part] = info
				for _, reference := range info.References {
					add(hashPart(reference))
				}
				text += size
				if len(found) > maxPaths || text > maxText {
					return c.errorf(part+narInfoSuffix, nil, "the closure has more than %d paths, or more than %d bytes about them", maxPaths, maxText)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return nil, err
		}
	}
	infos := make([]*narinfo.NarInfo, 0, len(found))
	for _, info := range found {
		for _, reference := range info.References {
			if is := found[hashPart(reference)].StorePath; is != reference {
				return nil, c.lie(info.HashPart()+narInfoSuffix, nil, "it refers to %s, and the cache has %s instead", reference, is)
			}
		}
		infos = append(infos, info)
	}
	ordered, err := Order(infos)
	if err != nil {
		return nil, fmt.Errorf("binary cache %s: %w", c.name, err)
	}
	return ordered, nil
}

// CycleError says that references lead in a circle.
type CycleError struct{ StorePath string }

func (e *CycleError) Error() string {
	return fmt.Sprintf("the references of %s lead in a circle", e.StorePath)
}

// ExitCode is that of bad input.
func (e *CycleError) ExitCode() int { return 2 }

// Order returns infos so that each comes after those that it refers to, and the
// same infos always in the same order.
func Order(infos []*narinfo.NarInfo) ([]*narinfo.NarInfo, error) {
	sorted := slices.SortedFunc(slices.Values(infos), func(a, b *narinfo.NarInfo) int {
		if a.StorePath < b.StorePath {
			return -1
		}
		return 1
	})
	index := make(map[string]int, len(sorted))
	for i, info := range sorted {
		index[info.StorePath] = i
	}
	// A walk in depth, with a stack of its own because chains of references may
	// be as long as there are paths.
	type step struct{ path, next int } // next reference of path to look at
	const unseen, open, done = 0, 1, 2
	state := make([]uint8, len(sorted))
	ordered := make([]*narinfo.NarInfo, 0, len(sorted))
	for i := range sorted {
		if state[i] != unseen {
			continue
		}
		state[i] = open
		for stack := []step{{path: i}}; len(stack) > 0; {
			top := &stack[len(stack)-1]
			info := sorted[top.path]
			if top.next == len(info.References) {
				state[top.path] = done
				ordered = append(ordered, info)
				stack = stack[:len(stack)-1]
				continue
			}
			j, ok := index[info.References[top.next]]
			top.next++
			switch {
			case !ok || j == top.path || state[j] == done:
			case state[j] == open:
				return nil, &CycleError{sorted[j].StorePath}
			default:
				state[j] = open
				stack = append(stack, step{path: j})
			}
		}
	}
	return ordered, nil
}
