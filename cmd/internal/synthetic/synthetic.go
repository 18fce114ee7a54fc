// Package synthetic makes closures of the shape that those of NixOS tests have,
// for benchmarks and tests: real files with real hashes, of which Nix finds
// nothing to complain. [Spec.Write] is its one entry point.
//
// A closure is a function of its Spec: the same everywhere, byte for byte.
package synthetic

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/nix-community/go-nix/pkg/nixbase32"
	"golang.org/x/sync/errgroup"

	"vm-prebuild/nar"
)

// Spec describes a closure.
type Spec struct {
	Paths int   // store paths
	Files int   // regular files and symbolic links in all of them; 0 makes every path an empty file
	Bytes int64 // sizes of all regular files together, about
	Seed  uint64

	// Even gives all paths equally many files. Otherwise few paths have most of
	// the files, as in real closures.
	Even bool
	// RegistrationOnly leaves the files out, for what looks only at the
	// registration; Files and Bytes must be 0.
	RegistrationOnly bool
}

// Reference is the closure that our benchmarks use unless they say otherwise:
// about that of a NixOS test with a few machines.
func Reference() Spec {
	return Spec{Paths: 3000, Files: 60_000, Bytes: 1_500_000_000, Seed: 1}
}

// Scaled is a closure of the same shape with f times the paths, files and
// bytes.
func (s Spec) Scaled(f float64) Spec {
	s.Paths = max(1, int(f*float64(s.Paths)))
	s.Files = int(f * float64(s.Files))
	s.Bytes = int64(f * float64(s.Bytes))
	return s
}

// Where Write puts things below the root.
const (
	StoreDir       = "nix/store"
	ClosureInfoDir = "closure-info"
)

// Closure is what Write has made.
type Closure struct {
	StorePaths []string `json:"-"` // sorted
	Paths      int      `json:"paths"`
	Files      int      `json:"files"` // regular ones
	Symlinks   int      `json:"symlinks"`
	NarBytes   int64    `json:"narBytes"`
	References int      `json:"references"`
}

// Write makes the closure's files below root/StoreDir, which must not hold any
// of them, and root/ClosureInfoDir as nixpkgs' closureInfo would.
func (s Spec) Write(ctx context.Context, root string) (*Closure, error) {
	if s.Paths < 1 || s.Files < 0 || s.Bytes < 0 || s.RegistrationOnly && s.Files+int(s.Bytes) > 0 {
		return nil, fmt.Errorf("synthetic closure: impossible specification %+v", s)
	}
	paths := s.plan()
	store := filepath.Join(root, StoreDir)
	if err := os.MkdirAll(store, 0o755); err != nil {
		return nil, fmt.Errorf("synthetic closure: %w", err)
	}
	if s.RegistrationOnly {
		if err := registerEmpty(ctx, paths); err != nil {
			return nil, err
		}
	} else if err := s.writeFiles(ctx, store, paths); err != nil {
		return nil, err
	}
	// exportReferencesGraph, which closureInfo is made of, sorts by path.
	slices.SortFunc(paths, func(a, b *storePath) int { return cmp.Compare(a.base, b.base) })
	if err := writeClosureInfo(filepath.Join(root, ClosureInfoDir), paths); err != nil {
		return nil, fmt.Errorf("synthetic closure: %w", err)
	}
	c := &Closure{Paths: len(paths)}
	for _, p := range paths {
		c.StorePaths = append(c.StorePaths, p.path())
		c.Files += p.regular
		c.Symlinks += p.symlinks
		c.NarBytes += p.narSize
		c.References += len(p.references)
	}
	return c, nil
}

// storePath is one path of the closure.
type storePath struct {
	base       string
	number     int
	references []string // full paths, sorted
	sizes      []int64  // of the files to make

	regular, symlinks int // made
	narHash           [sha256.Size]byte
	narSize           int64
}

func (p *storePath) path() string { return "/" + StoreDir + "/" + p.base }

// The figures below give the reference closure about 57,000 regular files whose
// median is 5 KiB and whose largest has 13 MB, and 20,000 references.
const (
	minFileBytes  = 16
	maxFileBytes  = 64 << 20
	maxReferences = 60
	selfShare     = 0.3  // of the paths refer to themselves
	symlinkShare  = 0.05 // of the files are symbolic links
	filesTail     = 1.1  // exponents of Pareto distributions
	referenceTail = 0.81
	sizeSpread    = 1.8 // standard deviation of a size's logarithm
)

// plan decides what paths there are, what they refer to, and how many files of
// what sizes they have.
func (s Spec) plan() []*storePath {
	rnd := rand.New(rand.NewPCG(s.Seed, 0))
	paths := make([]*storePath, s.Paths)
	for i := range paths {
		digest := sha256.Sum256(fmt.Appendf(nil, "%d:%d", s.Seed, i))
		paths[i] = &storePath{number: i, base: fmt.Sprintf("%s-package-%d-1.0", nixbase32.EncodeToString(digest[:20]), i)}
	}
	for i, p := range paths {
		p.references = references(rnd, paths[:i], p)
	}
	if s.Files == 0 {
		return paths
	}
	total := 0.0
	sizes := make([][]float64, s.Paths)
	for i, n := range s.fileCounts(rnd) {
		sizes[i] = make([]float64, n)
		for k := range sizes[i] {
			sizes[i][k] = math.Exp(sizeSpread * rnd.NormFloat64())
			total += sizes[i][k]
		}
	}
	for i, p := range paths {
		for _, size := range sizes[i] {
			p.sizes = append(p.sizes, min(max(int64(size*float64(s.Bytes)/total), minFileBytes), maxFileBytes))
		}
	}
	return paths
}

// references chooses what p refers to: some of the earlier paths, and maybe
// itself.
func references(rnd *rand.Rand, earlier []*storePath, p *storePath) []string {
	chosen := map[string]bool{}
	for n := min(int(pareto(rnd, referenceTail)), maxReferences, len(earlier)); len(chosen) < n; {
		chosen[earlier[rnd.IntN(len(earlier))].path()] = true
	}
	if rnd.Float64() < selfShare {
		chosen[p.path()] = true
	}
	all := make([]string, 0, len(chosen))
	for path := range chosen {
		all = append(all, path)
	}
	slices.Sort(all)
	return all
}

// fileCounts says how many files each path has: at least one.
func (s Spec) fileCounts(rnd *rand.Rand) []int {
	weights, total := make([]float64, s.Paths), 0.0
	for i := range weights {
		weights[i] = 1
		if !s.Even {
			weights[i] = pareto(rnd, filesTail)
		}
		total += weights[i]
	}
	counts := make([]int, s.Paths)
	for i, w := range weights {
		counts[i] = max(1, int(math.Round(w/total*float64(s.Files))))
	}
	return counts
}

// pareto is a random number not under 1 with a heavy tail.
func pareto(rnd *rand.Rand, exponent float64) float64 {
	return math.Pow(1-rnd.Float64(), -1/exponent)
}

// registerEmpty gives paths the hash of an empty file.
func registerEmpty(ctx context.Context, paths []*storePath) error {
	empty, err := os.CreateTemp("", "synthetic-")
	if err != nil {
		return fmt.Errorf("synthetic closure: %w", err)
	}
	defer os.Remove(empty.Name())
	defer empty.Close()
	hash, size, err := nar.Hash(ctx, empty.Name())
	if err != nil {
		return fmt.Errorf("synthetic closure: %w", err)
	}
	for _, p := range paths {
		p.narHash, p.narSize = hash, size
	}
	return nil
}

// writeFiles makes the files of all paths and hashes them.
func (s Spec) writeFiles(ctx context.Context, store string, paths []*storePath) error {
	text := newText(s.Seed)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, p := range paths {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			w := writer{storePath: p, rnd: rand.New(rand.NewPCG(s.Seed, uint64(p.number)+1)), text: text}
			file := filepath.Join(store, p.base)
			if err := w.write(file); err != nil {
				return fmt.Errorf("synthetic closure: %w", err)
			}
			var err error
			p.narHash, p.narSize, err = nar.Hash(ctx, file)
			return err
		})
	}
	return group.Wait()
}

// writeClosureInfo writes the files that nixpkgs' closureInfo writes.
func writeClosureInfo(dir string, paths []*storePath) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var registration, storePaths strings.Builder
	total := int64(0)
	for _, p := range paths {
		fmt.Fprintf(&storePaths, "%s\n", p.path())
		fmt.Fprintf(&registration, "%s\nsha256:%s\n%d\n\n%d\n", p.path(), nixbase32.EncodeToString(p.narHash[:]), p.narSize, len(p.references))
		for _, r := range p.references {
			fmt.Fprintf(&registration, "%s\n", r)
		}
		total += p.narSize
	}
	for name, text := range map[string]string{
		"registration": registration.String(), "store-paths": storePaths.String(), "total-nar-size": fmt.Sprintln(total),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
