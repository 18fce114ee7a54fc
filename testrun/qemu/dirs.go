package qemu

import "vm-prebuild/testrun/machine"

// Dirs implements machine.Machine.
func (m *Machine) Dirs() machine.Dirs {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.moved != nil {
		return *m.moved
	}
	return m.cfg.Dirs
}

// SetDirs implements machine.Mover.
func (m *Machine) SetDirs(dirs machine.Dirs) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moved = &dirs
}
