package storedb

import (
	"slices"
	"strings"
)

// graph is the references of a closure by index. It is made once, since looking
// up every reference by its path takes as long as inserting it.
type graph struct {
	closure *Closure
	paths   []PathInfo // of the closure, in the order of their paths
	others  []string   // paths that are referred to but not among paths
	first   []int32    // of each path, where its references begin in targets; and their end
	targets []int32    // index in paths, or the complement of one in others
}

// newGraph makes the graph of a closure, in which no two different paths may
// refer to each other, directly or not: Nix refuses such registrations.
func newGraph(c *Closure) (*graph, error) {
	g := &graph{closure: c, paths: c.Paths, first: make([]int32, len(c.Paths)+1)}
	if !slices.IsSortedFunc(g.paths, comparePaths) {
		g.paths = slices.SortedFunc(slices.Values(c.Paths), comparePaths)
	}
	index := make(map[string]int32, len(g.paths))
	count := 0
	for i := range g.paths {
		if i > 0 && g.paths[i].Path == g.paths[i-1].Path {
			return nil, c.errorAt(g.paths[i], "%s is in the closure twice", g.paths[i].Path)
		}
		index[g.paths[i].Path] = int32(i)
		count += len(g.paths[i].References)
	}
	g.targets = make([]int32, 0, count)
	for i := range g.paths {
		for _, reference := range g.paths[i].References {
			target, ok := index[reference]
			if !ok {
				target = ^int32(len(g.others))
				index[reference] = target
				g.others = append(g.others, reference)
			}
			g.targets = append(g.targets, target)
		}
		g.first[i+1] = int32(len(g.targets))
	}
	return g, g.checkCycles()
}

// references are those of path i.
func (g *graph) references(i int32) []int32 { return g.targets[g.first[i]:g.first[i+1]] }

// checkCycles follows all references, depth first, and fails if one leads back
// to a path that it came through.
func (g *graph) checkCycles() error {
	const (
		unseen = iota
		open
		done
	)
	state := make([]uint8, len(g.paths))
	type step struct{ path, next int32 } // next is where in targets to go on
	var way []step
	for i := range g.paths {
		if state[i] != unseen {
			continue
		}
		state[i] = open
		way = append(way, step{int32(i), g.first[i]})
		for len(way) > 0 {
			at := &way[len(way)-1]
			if at.next == g.first[at.path+1] {
				state[at.path] = done
				way = way[:len(way)-1]
				continue
			}
			target := g.targets[at.next]
			at.next++
			switch {
			case target < 0 || target == at.path || state[target] == done:
			case state[target] == open:
				return g.closure.errorAt(g.paths[target], "the references of %s lead in a circle", g.paths[target].Path)
			default:
				state[target] = open
				way = append(way, step{target, g.first[target]})
			}
		}
	}
	return nil
}

// checkOthers makes sure that all that is referred to but not in the closure is
// valid already.
func (g *graph) checkOthers(valid map[string]int64) error {
	for n, other := range g.others {
		if _, ok := valid[other]; ok {
			continue
		}
		for i := range g.paths {
			if slices.Contains(g.references(int32(i)), ^int32(n)) {
				return g.closure.errorAt(g.paths[i], "%s refers to %s, which is neither in this closure nor valid in the store", g.paths[i].Path, other)
			}
		}
	}
	return nil
}

func comparePaths(a, b PathInfo) int { return strings.Compare(a.Path, b.Path) }
