package main

import (
	"vm-prebuild/testrun/warm"
)

// warmCommand makes states of machines, which tests start from, looks after them, and
// brings them to other machines.
type warmCommand struct {
	Build  warmBuildCommand  `cmd:"" help:"Boot the machines of a test and save their states, without running the test."`
	List   warmListCommand   `cmd:"" help:"List the states of machines that were saved."`
	Verify warmVerifyCommand `cmd:"" help:"Read states and compare them with what was saved."`
	GC     warmGCCommand     `cmd:"" name:"gc" help:"Remove states: damaged and old ones, and those not used for longest."`
	Push   warmPushCommand   `cmd:"" help:"Pack states into a directory, for other machines."`
	Pull   warmPullCommand   `cmd:"" help:"Unpack states from such a directory."`
}

type warmStore struct {
	WarmDir string `env:"NIXOS_TEST_WARM_DIR" placeholder:"DIR" help:"Directory of the states. Default: $XDG_CACHE_HOME/vm-prebuild/warm."`
}

func (w warmStore) open() (warm.Store, error) {
	if w.WarmDir != "" {
		return warm.Store{Dir: w.WarmDir}, nil
	}
	dir, err := warm.DefaultDir()
	return warm.Store{Dir: dir}, err
}

// keysOf are the states that were named, or all if none was.
func keysOf(store warm.Store, named []string) ([]string, error) {
	if len(named) > 0 {
		return named, nil
	}
	all, err := store.List()
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(all))
	for i, e := range all {
		keys[i] = e.Key
	}
	return keys, nil
}
