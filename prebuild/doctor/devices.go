package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
)

func tun(_ context.Context, m *machine) Result {
	return m.device("/dev/net/tun", "tun", "guests with TAP devices and tests with containers")
}

func vhostVsock(_ context.Context, m *machine) Result {
	return m.device("/dev/vhost-vsock", "vhost_vsock", "the SSH backdoor of nixpkgs before 26.05")
}

// device finds out whether a device that some tests need can be opened.
func (m *machine) device(device, module, who string) Result {
	f, err := os.OpenFile(m.path(device), os.O_RDWR, 0)
	switch {
	case err == nil:
		f.Close()
		return ok("%s opens", device)
	case errors.Is(err, fs.ErrNotExist):
		return warning("modprobe "+module, "there is no %s, for %s", device, who)
	case errors.Is(err, fs.ErrPermission):
		return warning("chmod 0666 "+device, "%s may not be opened by %s, for %s", device, m.user, who)
	default: // the module is not there, for one
		return warning("modprobe "+module, "%s does not open, for %s: %v", device, who, errors.Unwrap(err))
	}
}
