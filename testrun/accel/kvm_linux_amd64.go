package accel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl numbers of linux/kvm.h for x86-64.
const (
	kvmGetAPIVersion       = 0xae00
	kvmCreateVM            = 0xae01
	kvmGetVCPUMmapSize     = 0xae04
	kvmCreateVCPU          = 0xae41
	kvmSetUserMemoryRegion = 0x4020ae46
	kvmRun                 = 0xae80
	kvmSetRegs             = 0x4090ae82
	kvmGetSregs            = 0x8138ae83
	kvmSetSregs            = 0x4138ae84
)

const (
	apiVersion = 12 // the only one since Linux 2.6.22
	exitIO     = 2  // KVM_EXIT_IO of struct kvm_run
	donePort   = 0xf4

	// Guest-physical layout of the probe's memory.
	pml4At   = 0x1000
	pdptAt   = 0x2000
	pdAt     = 0x3000
	dataAt   = 0x4000
	codeAt   = 0x5000
	memBytes = 0x6000
)

// guestCode is a loop that a CPU runs in a millisecond, and then an OUT.
var guestCode = []byte{
	0x48, 0xc7, 0xc1, 0x55, 0x43, 0x05, 0x00, // mov  $345941, %rcx
	0x48, 0x83, 0xc0, 0x03, //             1: add  $3, %rax
	0x48, 0x89, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00, // mov %rax, dataAt
	0xe2, 0xf2, //                            loop 1b
	0xe6, donePort, //                        out  %al, $donePort
	0xf4, //                                  hlt
}

// segment is struct kvm_segment.
type segment struct {
	base                                  uint64
	limit                                 uint32
	selector                              uint16
	typ, present, dpl, db, s, l, g, avail uint8
	unusable, _                           uint8
}

// sregs is struct kvm_sregs.
type sregs struct {
	cs, ds, es, fs, gs, ss, tr, ldt segment
	gdt, idt                        struct {
		base  uint64
		limit uint16
		_     [3]uint16
	}
	cr0, cr2, cr3, cr4, cr8, efer, apicBase uint64
	interrupts                              [4]uint64
}

// regs is struct kvm_regs.
type regs struct {
	general     [16]uint64
	rip, rflags uint64
}

// memoryRegion is struct kvm_userspace_memory_region.
type memoryRegion struct {
	slot, flags                     uint32
	guestAddress, size, userAddress uint64
}

func probe(ctx context.Context) Result {
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return Result{
			Reason: "there is no /dev/kvm",
			Hint:   "load the kvm_intel or kvm_amd module; in a virtual machine, enable nested virtualisation; in a Nix sandbox, add kvm to system-features",
		}
	case errors.Is(err, unix.EACCES):
		return Result{
			Reason: "/dev/kvm is not writable",
			Hint:   "add the user to group kvm",
		}
	case err != nil:
		return Result{Reason: fmt.Sprintf("opening /dev/kvm: %v", err)}
	}
	defer unix.Close(fd)
	if err := runGuest(ctx, fd); err != nil {
		return Result{Reason: err.Error()}
	}
	return Result{KVM: true}
}

// runGuest runs guestCode on one virtual CPU that is set up in 64-bit mode.
func runGuest(ctx context.Context, kvm int) error {
	if v, err := ioctl(kvm, kvmGetAPIVersion, 0); err != nil {
		return fmt.Errorf("KVM_GET_API_VERSION: %w", err)
	} else if v != apiVersion {
		return fmt.Errorf("/dev/kvm speaks API version %d, not %d", v, apiVersion)
	}
	vm, err := ioctl(kvm, kvmCreateVM, 0)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	defer unix.Close(vm)
	mem, err := unix.Mmap(-1, 0, memBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("guest memory: %w", err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	// Identity mapping of the first 2 MiB by one large page.
	binary.LittleEndian.PutUint64(mem[pml4At:], pdptAt|3)
	binary.LittleEndian.PutUint64(mem[pdptAt:], pdAt|3)
	binary.LittleEndian.PutUint64(mem[pdAt:], 0x83)
	copy(mem[codeAt:], guestCode)
	region := memoryRegion{size: memBytes, userAddress: uint64(uintptr(unsafe.Pointer(&mem[0])))}
	if _, err := ioctl(vm, kvmSetUserMemoryRegion, uintptr(unsafe.Pointer(&region))); err != nil {
		return fmt.Errorf("KVM_SET_USER_MEMORY_REGION: %w", err)
	}
	cpu, err := ioctl(vm, kvmCreateVCPU, 0)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VCPU: %w", err)
	}
	defer unix.Close(cpu)
	if err := enterLongMode(cpu); err != nil {
		return err
	}
	size, err := ioctl(kvm, kvmGetVCPUMmapSize, 0)
	if err != nil {
		return fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %w", err)
	}
	run, err := unix.Mmap(cpu, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping the virtual CPU: %w", err)
	}
	defer func() { _ = unix.Munmap(run) }()

	// A signal to this very thread is what ends a KVM_RUN that takes too long;
	// the Go runtime uses SIGURG itself and ignores a stray one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := unix.Gettid()
	ended := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if watch(ctx, ended, thread) {
			run[1] = 1 // immediate_exit: a KVM_RUN that has not begun returns too
			_ = unix.Tgkill(os.Getpid(), thread, unix.SIGURG)
		}
	}()
	defer func() {
		close(ended)
		<-watched
	}()
	for {
		_, err := ioctl(cpu, kvmRun, 0)
		switch {
		case errors.Is(err, unix.EINTR) && run[1] == 0:
			continue
		case errors.Is(err, unix.EINTR):
			return fmt.Errorf("a loop of a million guest instructions did not end within %v of CPU time (each is emulated in software)", cpuLimit)
		case err != nil:
			return fmt.Errorf("KVM_RUN: %w", err)
		}
		// struct kvm_run: exit_reason at byte 8; of an I/O exit, the port at 34.
		reason, port := binary.LittleEndian.Uint32(run[8:]), binary.LittleEndian.Uint16(run[34:])
		if reason != exitIO || port != donePort {
			return fmt.Errorf("guest code left KVM_RUN with exit reason %d", reason)
		}
		return nil
	}
}

// watch returns true when a thread of ours has used cpuLimit from now on, or ctx
// ends, and false when ended is closed.
func watch(ctx context.Context, ended <-chan struct{}, thread int) bool {
	// The clock of a thread's CPU time, MAKE_THREAD_CPUCLOCK of linux/posix-timers.h.
	clock := int32(^thread<<3 | 4 | 2)
	used := func() time.Duration {
		var t unix.Timespec
		if err := unix.ClockGettime(clock, &t); err != nil {
			return 0
		}
		return time.Duration(t.Nano())
	}
	begin := used()
	tick := time.NewTicker(cpuLimit / 8)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if used()-begin > cpuLimit {
				return true
			}
		case <-ctx.Done():
			return true
		case <-ended:
			return false
		}
	}
}

func enterLongMode(cpu int) error {
	var s sregs
	if _, err := ioctl(cpu, kvmGetSregs, uintptr(unsafe.Pointer(&s))); err != nil {
		return fmt.Errorf("KVM_GET_SREGS: %w", err)
	}
	flat := segment{limit: 0xffffffff, selector: 0x10, typ: 3, present: 1, db: 1, s: 1, g: 1}
	s.ds, s.es, s.fs, s.gs, s.ss = flat, flat, flat, flat, flat
	s.cs = segment{limit: 0xffffffff, selector: 0x8, typ: 11, present: 1, s: 1, l: 1, g: 1}
	s.cr0 = 0x80000001 // paging, protection
	s.cr3 = pml4At
	s.cr4 = 0x20   // PAE
	s.efer = 0x500 // long mode enabled and active
	if _, err := ioctl(cpu, kvmSetSregs, uintptr(unsafe.Pointer(&s))); err != nil {
		return fmt.Errorf("KVM_SET_SREGS: %w", err)
	}
	r := regs{rip: codeAt, rflags: 2}
	if _, err := ioctl(cpu, kvmSetRegs, uintptr(unsafe.Pointer(&r))); err != nil {
		return fmt.Errorf("KVM_SET_REGS: %w", err)
	}
	return nil
}

func ioctl(fd int, request, arg uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, arg)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
