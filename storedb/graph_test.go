package storedb

import (
	"errors"
	"testing"
)

const (
	pathX = StoreDir + "/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-x"
	pathY = StoreDir + "/yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy-y"
	pathZ = StoreDir + "/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz-z"
)

func TestGraphErrors(t *testing.T) {
	refers := func(path string, references ...string) PathInfo {
		return PathInfo{Path: path, References: references, line: int(path[len(path)-1])}
	}
	tests := []struct {
		name  string
		paths []PathInfo
		want  string // none if empty
	}{
		{"nothing", nil, ""},
		{"itself", []PathInfo{refers(pathX, pathX)}, ""},
		{"unsorted", []PathInfo{refers(pathZ, pathY), refers(pathY, pathX), refers(pathX)}, ""},
		{"by two ways", []PathInfo{refers(pathX, pathY, pathZ), refers(pathY, pathZ), refers(pathZ)}, ""},
		{"valid already", []PathInfo{refers(pathX, pathA)}, ""},
		{"two in a circle", []PathInfo{refers(pathX, pathY), refers(pathY, pathX)}, "closure:120: the references of " + pathX + " lead in a circle"},
		{"circle beyond", []PathInfo{refers(pathX, pathY), refers(pathY, pathY, pathZ), refers(pathZ, pathY)}, "closure:121: the references of " + pathY + " lead in a circle"},
		{"twice", []PathInfo{refers(pathX), refers(pathY), refers(pathX)}, "closure:120: " + pathX + " is in the closure twice"},
		{"to nothing", []PathInfo{refers(pathX), refers(pathY, pathX, pathZ)}, "closure:121: " + pathY + " refers to " + pathZ + ", which is neither in this closure nor valid in the store"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g, err := newGraph(&Closure{Name: "closure", Paths: test.paths})
			if err == nil {
				err = g.checkOthers(map[string]int64{pathA: 1})
			}
			if test.want == "" {
				check(t, err)
			} else if input := new(InputError); !errors.As(err, &input) || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
}
