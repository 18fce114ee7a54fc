package testrun

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"vm-prebuild/testrun/event"
	"vm-prebuild/testrun/startcommand"
	"vm-prebuild/testrun/vsock"
)

// sshBackdoor is how the host's SSH client reaches the machines of a test; nil
// when it does not. Those of create_machine have none.
type sshBackdoor struct {
	names    []string          // machines, sorted
	commands map[string]string // to log in, by machine
	device   *vsock.Device     // nil with the kernel's own /dev/vhost-vsock
	dir      string            // of the device's sockets
}

// openSSHBackdoor has the driver's machines reached in the way that the
// configuration asks for, if it does.
func (d *driver) openSSHBackdoor(ctx context.Context) error {
	if d.cfg.VSOCKOffset > 0 {
		if err := d.checkVhostVSOCK(); err != nil {
			return err
		}
		d.ssh = kernelBackdoor(d.cfg.Machines, d.cfg.VSOCKOffset)
		return nil
	}
	if !d.cfg.SSHBackdoor {
		return nil
	}
	d.ssh = newBackdoor(d.cfg.Machines)
	if len(d.ssh.names) == 0 {
		return nil
	}
	return d.bus.Nested("", "start vhost-device-vsock", func() (err error) {
		// A directory of its own, as the sockets' names are not the machines' alone.
		if d.ssh.dir, err = os.MkdirTemp(d.dirs.tmp, "vsock"); err != nil {
			return fmt.Errorf("SSH backdoor: %w", err)
		}
		d.reaper.RemoveAtDeath(d.ssh.dir)
		d.ssh.device, err = vsock.Start(ctx, vsock.Options{
			Dir:      d.ssh.dir,
			Machines: d.ssh.names,
			Spawn:    d.reaper.Spawn,
			Warn:     func(text string) { d.bus.Log(event.Warning, "", text) },
		})
		if err != nil {
			return err
		}
		for _, name := range d.ssh.names {
			d.ssh.commands[name] = "ssh -o User=root vsock-mux/" + d.ssh.device.Host(name)
		}
		return nil
	})
}

func newBackdoor(machines []MachineConfig) *sshBackdoor {
	b := &sshBackdoor{commands: map[string]string{}}
	for _, m := range machines {
		b.names = append(b.names, m.Name)
	}
	return b
}

// kernelBackdoor is that of NixOS before 26.05: the guests' context identifiers
// count from the offset.
func kernelBackdoor(machines []MachineConfig, offset int) *sshBackdoor {
	b := newBackdoor(machines)
	for i, name := range b.names {
		b.commands[name] = vsockCommand(offset + 1 + i)
	}
	return b
}

func vsockCommand(cid int) string { return fmt.Sprintf("ssh -o User=root vsock/%d", cid) }

// checkVhostVSOCK finds out before a boot that a start script's virtio socket
// device would stop QEMU.
func (d *driver) checkVhostVSOCK() error {
	for _, m := range d.cfg.Machines {
		text, err := os.ReadFile(m.Command.Script)
		if err != nil {
			return fmt.Errorf("machine %q: %w", m.Name, err)
		}
		if !bytes.Contains(text, []byte("vhost-vsock-")) {
			continue
		}
		const device = "/dev/vhost-vsock"
		if err := unix.Access(device, unix.R_OK|unix.W_OK); err != nil {
			return fmt.Errorf("machine %q: its start script needs %s, which cannot be opened: %w\nhint: load the kernel module vhost_vsock and make %s writable (in the Nix sandbox: extra-sandbox-paths), or set sshBackdoor.enable = false in the test", m.Name, device, err, device)
		}
	}
	return nil
}

// attach adds to a machine's start command what lets SSH clients reach it.
func (b *sshBackdoor) attach(name string, c startcommand.Command) startcommand.Command {
	if b != nil && b.device != nil {
		c.QEMUArguments = b.device.QEMUArguments(name)
	}
	return c
}

// command logs in to the machine; "" when nothing does.
func (b *sshBackdoor) command(name string) string {
	if b == nil {
		return ""
	}
	return b.commands[name]
}

// table lists the command of each machine, a line each; "" when there is no
// backdoor.
func (b *sshBackdoor) table() string {
	if b == nil {
		return ""
	}
	if len(b.names) == 0 {
		return "The SSH backdoor is enabled, but the test has no machines."
	}
	longest := 0
	for _, name := range b.names {
		longest = max(longest, len(name))
	}
	lines := []string{"SSH backdoor: these commands log in, on a host with systemd-ssh-proxy(1):"}
	for _, name := range b.names {
		lines = append(lines, fmt.Sprintf("    %-*s  %s", longest+1, name+":", b.commands[name]))
	}
	return strings.Join(lines, "\n")
}

func (b *sshBackdoor) close() error {
	if b == nil || b.device == nil {
		return nil
	}
	return b.device.Close()
}
