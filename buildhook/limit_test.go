package buildhook

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"vm-prebuild/buildhook/admission"
)

// TestLimitOf: without flags, tests have a part of what the machine has, or what
// control groups leave of it.
func TestLimitOf(t *testing.T) {
	cpus := runtime.NumCPU()
	const memory = "MemFree: 1 kB\nMemTotal:       10240000 kB\nSwapTotal: 5 kB\n"
	for name, tt := range map[string]struct {
		flags  Budget
		files  map[string]string
		memory int
		cores  int
		fails  string
	}{
		"no groups": {files: map[string]string{"proc/meminfo": memory}, memory: 8000, cores: cpus},
		"no limits": {files: map[string]string{
			"proc/meminfo": memory, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
		}, memory: 8000, cores: cpus},
		"its group": {files: map[string]string{
			"proc/meminfo": memory, "proc/self/cgroup": "1:name=systemd:/x\n0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "1048576000\n", "sys/fs/cgroup/a/b/cpu.max": "50000 100000\n",
			"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/x/memory.max": "1\n",
		}, memory: 800, cores: 1},
		"a parent": {files: map[string]string{
			"proc/meminfo": memory, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "2097152000\n", "sys/fs/cgroup/a/b/cpu.max": "9900000 100000\n",
			"sys/fs/cgroup/a/memory.max": "1048576000\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n",
		}, memory: 800, cores: 1},
		"a namespace": {files: map[string]string{
			"proc/meminfo": memory, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1048576000\n", "sys/fs/cgroup/cpu.max": "1 100000\n",
		}, memory: 800, cores: 1},
		"flags":      {flags: Budget{MemoryMiB: 5, Cores: 1000}, memory: 5, cores: 1000},
		"no memory":  {files: map[string]string{"proc/meminfo": "MemFree: 1 kB\n"}, fails: "there are 0 MiB\nhint: --memory"},
		"no meminfo": {fails: "no such file"},
		"a group without memory": {files: map[string]string{
			"proc/meminfo": memory, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "0\n",
		}, fails: "there are 0 MiB\nhint: --memory"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				file := filepath.Join(root, name)
				err := os.MkdirAll(filepath.Dir(file), 0o755)
				if err == nil {
					err = os.WriteFile(file, []byte(text), 0o644)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			l, err := limitOf(tt.flags, root)
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("%v, want %q", err, tt.fails)
				}
				return
			}
			if want := (admission.Budget{MemoryMiB: tt.memory, Cores: tt.cores}); err != nil || l.budget != want || l.alone != (tt.flags.Cores == 0) {
				t.Errorf("%+v, %v, want %+v", l, err, want)
			}
		})
	}
}
