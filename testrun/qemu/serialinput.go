package qemu

import (
	"context"
	"time"
)

// TypeSerial implements machine.SerialTyper: QEMU's stdin is the input of the
// guest's serial port.
func (m *Machine) TypeSerial(ctx context.Context, text string) error {
	return m.ask(ctx, "writing to the serial console", func(ctx context.Context, p *process) error {
		p.typing.Lock()
		defer p.typing.Unlock()
		// A guest that does not read holds QEMU up, and QEMU us.
		if err := p.stdin.SetWriteDeadline(time.Time{}); err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = p.stdin.SetWriteDeadline(time.Unix(1, 0)) })
		defer stop()
		_, err := p.stdin.WriteString(text)
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	})
}
