package qmp_test

import (
	"context"
	"fmt"
	"net"

	"github.com/digitalocean/go-qemu/qemu"

	"vm-prebuild/testrun/qmp"
)

// go-qemu's Domain on top of a Monitor.
func ExampleMonitor_Connect() {
	conn, err := net.Dial("unix", "vm-state-machine/qmp")
	if err != nil {
		fmt.Println(err)
		return
	}
	m := qmp.New(conn)
	defer m.Close()
	if err := m.Connect(); err != nil {
		fmt.Println(err)
		return
	}
	domain, err := qemu.NewDomain(m, "machine")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(domain.Status())
	fmt.Println(m.HumanCommand(context.Background(), "info network"))
}
