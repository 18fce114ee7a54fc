package machine

import "context"

// SwitchRoot has a guest whose initrd holds the root shell go on to its real
// system, and waits for the root shell there.
func (g *Guest) SwitchRoot(ctx context.Context) error {
	if err := g.WaitForUnit(ctx, "initrd.target", "", DefaultTimeout); err != nil {
		return err
	}
	// The shell ends with the initrd, so nobody waits for an answer.
	const isolate = "systemctl isolate --no-block initrd-switch-root.target 2>/dev/null >/dev/null"
	if _, err := g.Execute(ctx, isolate, DefaultTimeout, false); err != nil {
		return err
	}
	if err := g.Disconnect(); err != nil {
		return err
	}
	_, err := g.Shell(ctx)
	return err
}
