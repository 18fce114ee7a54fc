package prebuild

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// missing is what nix would have to do, as `nix build --dry-run` tells it.
type missing struct {
	build         []string // derivations to build
	fetch         []string // store paths to fetch
	downloadBytes int64    // of fetch, compressed; as exact as nix prints it
	unpackedBytes int64    // of fetch
}

var (
	buildHeader   = regexp.MustCompile(`^(?:this derivation|these \d+ derivations) will be built:$`)
	fetchHeader   = regexp.MustCompile(`^(?:this path|these \d+ paths) will be fetched \(([\d.]+ \w+) download, ([\d.]+ \w+) unpacked\):$`)
	unknownHeader = regexp.MustCompile(`^don't know how to build these paths`)
)

// parseDryRun reads the text that nix writes to stderr (libmain's printMissing):
// up to three headings, each with indented store paths below it.
func parseDryRun(text []byte) (m missing, err error) {
	var list *[]string
	var unknown []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if path, ok := strings.CutPrefix(line, "  /"); ok && list != nil {
			*list = append(*list, "/"+path)
			continue
		}
		list = nil
		switch match := fetchHeader.FindStringSubmatch(line); {
		case match != nil:
			list = &m.fetch
			if m.downloadBytes, err = parseSize(match[1]); err != nil {
				return m, err
			}
			if m.unpackedBytes, err = parseSize(match[2]); err != nil {
				return m, err
			}
		case buildHeader.MatchString(line):
			list = &m.build
		case unknownHeader.MatchString(line):
			list = &unknown
		}
	}
	if err := lines.Err(); err != nil {
		return m, fmt.Errorf("reading nix's plan: %w", err)
	}
	if len(unknown) > 0 {
		return m, fmt.Errorf("nix does not know how to build %s", strings.Join(unknown, ", "))
	}
	return m, nil
}

// parseSize reads "1.25 MiB". Nix printed MiB only, newer ones choose a unit.
func parseSize(s string) (int64, error) {
	number, unit, _ := strings.Cut(s, " ")
	value, err := strconv.ParseFloat(number, 64)
	power := strings.Index("BKMGTP", unit[:min(1, len(unit))])
	if err != nil || power < 0 || unit == "" || value < 0 || value > 1<<20 {
		return 0, fmt.Errorf("reading nix's plan: %q is no size", s)
	}
	return int64(value * float64(int64(1)<<(10*power))), nil
}
