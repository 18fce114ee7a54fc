package mountns

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The group whose members build for a Nix that root runs, and its only member
// where there was none. The ids are those that Nix's installer gives them.
const (
	buildGroup    = "nixbld"
	buildGroupID  = 30000
	buildMember   = "nixbld1"
	buildMemberID = 30001
)

// accounts makes complete copies in dir of those files of users and groups that
// lack what Nix needs, and says where they are to be mounted.
//
// Nix asks for the name of its user. Run by root it wants a group nixbld with
// members unless it has been told otherwise, and a command may clear the
// environment that tells it. Sandboxes and small containers often lack these.
func accounts(dir string) ([]bind, error) {
	var binds []bind
	for name, complete := range map[string]func(database, int) database{"passwd": completeUsers, "group": completeGroups} {
		target := filepath.Join("/etc", name)
		text, err := os.ReadFile(target)
		if err != nil {
			continue // nothing could be mounted on it either
		}
		id := os.Geteuid()
		if name == "group" {
			id = os.Getegid()
		}
		before := parse(string(text))
		after := complete(slices.Clone(before), id)
		if slices.Equal(before, after) {
			continue
		}
		source := filepath.Join(dir, name)
		if err := os.WriteFile(source, []byte(strings.Join(after, "\n")+"\n"), 0o644); err != nil {
			return nil, fmt.Errorf("make %s: %w", target, err)
		}
		binds = append(binds, bind{Source: source, Target: target})
	}
	return binds, nil
}

// database is the lines of a file of users or groups, see passwd(5) and
// group(5). Of their fields between colons, the first is the name and the third
// the id.
type database []string

func parse(text string) database {
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// find returns the index of the first line with value in the given field, or -1.
func (d database) find(field int, value string) int {
	return slices.IndexFunc(d, func(line string) bool {
		fields := strings.Split(line, ":")
		return len(fields) > field && fields[field] == value
	})
}

// freeName is a name that no line has.
func (d database) freeName(name string, id int) string {
	for d.find(0, name) >= 0 {
		name += "-" + strconv.Itoa(id)
	}
	return name
}

func completeUsers(d database, uid int) database {
	if d.find(2, strconv.Itoa(uid)) < 0 {
		name := "nix"
		if uid == 0 {
			name = "root"
		}
		d = append(d, fmt.Sprintf("%s:x:%d:%d:Nix user:/nonexistent:/bin/sh", d.freeName(name, uid), uid, os.Getegid()))
	}
	if uid == 0 && d.find(0, buildMember) < 0 {
		d = append(d, fmt.Sprintf("%s:x:%d:%d:Nix build user:/nonexistent:/bin/false", buildMember, buildMemberID, buildGroupID))
	}
	return d
}

func completeGroups(d database, gid int) database {
	if d.find(2, strconv.Itoa(gid)) < 0 {
		d = append(d, fmt.Sprintf("%s:x:%d:", d.freeName("nix", gid), gid))
	}
	if os.Geteuid() != 0 {
		return d
	}
	switch i := d.find(0, buildGroup); {
	case i < 0:
		d = append(d, fmt.Sprintf("%s:x:%d:%s", buildGroup, buildGroupID, buildMember))
	case strings.HasSuffix(d[i], ":"):
		d[i] += buildMember
	}
	return d
}
