package testrun

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/vlan"
)

const (
	// machineEnv names, in the environment of a machine's processes, the machine.
	machineEnv = "VM_PREBUILD_MACHINE"
	// seedEnv has the faults of VLANs repeat those of an earlier run.
	seedEnv = "VM_PREBUILD_SEED"
)

// startVLAN starts the VLAN of that number. Its clients find it in dir.
func (d *driver) startVLAN(ctx context.Context, number int, dir string) (vlan.Switch, error) {
	d.reaper.RemoveAtDeath(dir)
	if d.cfg.VLANBackend == VDESwitch {
		return vlan.StartProcess(ctx, number, dir, d.reaper.Spawn)
	}
	o := vlan.Options{Owner: machineOf, Seed: d.seed}
	if d.cfg.PCAPDir != "" {
		if err := os.MkdirAll(d.captureDir(), 0o755); err != nil {
			return nil, fmt.Errorf("capture: %w", err)
		}
		o.Capture = d.captureFile(number)
	}
	return vlan.Start(number, dir, o)
}

func (d *driver) captureDir() string {
	if filepath.IsAbs(d.cfg.PCAPDir) {
		return d.cfg.PCAPDir
	}
	return filepath.Join(d.cfg.OutDir, d.cfg.PCAPDir)
}

func (d *driver) captureFile(number int) string {
	return filepath.Join(d.captureDir(), fmt.Sprintf("vlan%d.pcapng", number))
}

// closeVLAN ends a VLAN and reports what went through it.
func (d *driver) closeVLAN(s vlan.Switch) error {
	err := s.Close()
	hub, ok := s.(*vlan.VLAN)
	if !ok {
		return err
	}
	for _, t := range hub.Traffic() {
		d.bus.Emit(event.Traffic{
			VLAN:       hub.Number(),
			Machine:    t.Machine,
			FromFrames: t.FromFrames,
			FromBytes:  t.FromBytes,
			ToFrames:   t.ToFrames,
			ToBytes:    t.ToBytes,
			Dropped:    t.Dropped,
		})
	}
	if d.cfg.PCAPDir != "" {
		file := d.captureFile(hub.Number())
		if lost := hub.Stats().Uncaptured; lost > 0 {
			d.bus.Log(event.Warning, "", fmt.Sprintf("%d frames are missing from %s: they came faster than it could be written", lost, file))
		}
		d.bus.Emit(event.Artifact{Kind: "capture", Path: file})
	}
	return err
}

// machineOf names the machine that a process belongs to. The start script and
// all that it starts have the name in their environment; for what does not, the
// script speaks, which leads their process group.
func machineOf(pid int) string {
	name := machineIn(pid)
	if name == "" {
		if leader, err := unix.Getpgid(pid); err == nil {
			name = machineIn(leader)
		}
	}
	return name
}

// machineIn returns the name of the machine in the environment of a process.
func machineIn(pid int) string {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return "" // not ours, or gone
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if name, ok := bytes.CutPrefix(entry, []byte(machineEnv+"=")); ok {
			return string(name)
		}
	}
	return ""
}

// faultSeed is what decides over the faults of VLANs.
func faultSeed() (uint64, error) {
	text := os.Getenv(seedEnv)
	if text == "" {
		return rand.Uint64(), nil
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s=%s: %w\nhint: unset it, or give it the number that an earlier run logged", seedEnv, text, err)
	}
	return seed, nil
}
