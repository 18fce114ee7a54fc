// Package serve has Nix build a derivation that is not in its store, only its
// inputs are. [Build] is its entry point.
//
// It speaks the protocol of nix-store --serve --write, of which it needs the
// greeting and one request (src/libstore/serve-protocol.hh and opServe in
// src/nix-store/nix-store.cc in Nix 2.8). A derivation is sent as what is to be
// run and with which inputs, so nobody looks for the derivations that these were
// built from.
package serve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/nix-community/go-nix/pkg/wire"

	"vm-prebuild/buildhook/derivation"
)

// Numbers of the protocol. Version 2.5 is old enough for all servers from Nix 2.8
// on; since 2.6 they also send realisations, which nobody here needs.
const (
	clientMagic = 0x390c9deb
	serverMagic = 0x5452eecb
	version     = 2<<8 | 5

	commandBuildDerivation = 8
)

// maxMessage bounds what is read of a server's error message, in bytes.
const maxMessage = 1 << 20

// Request says what to build.
type Request struct {
	Drv        string // store path of the derivation, for messages
	Derivation *derivation.Derivation
	Inputs     []string // store paths, complete with all that they refer to

	MaxSilentTime, Timeout time.Duration // whole seconds; 0 means no limit
	MaxLogSize             uint64        // bytes; 0 means no limit

	// Ready is called when the server has opened its store; may be nil.
	Ready func()
}

// Status is how a build ended, in Nix's numbers.
type Status uint64

// Those that make a difference here.
const (
	Built        Status = 0
	Substituted  Status = 1
	AlreadyValid Status = 2
	TimedOut     Status = 8
)

// Result is how a build ended.
type Result struct {
	Status  Status
	Message string // what Nix says of a failure
}

// OK says whether the outputs are valid now.
func (r Result) OK() bool { return r.Status <= AlreadyValid }

// Build sends a request on w, once, and waits for the result on r.
func Build(w io.Writer, r io.Reader, q Request) (Result, error) {
	out, in := bufio.NewWriter(w), bufio.NewReader(r)
	e := encoder{w: out}
	e.numbers(clientMagic, version, commandBuildDerivation)
	e.texts(q.Drv)
	e.derivation(q.Derivation, q.Inputs)
	e.numbers(uint64(q.MaxSilentTime/time.Second), uint64(q.Timeout/time.Second), q.MaxLogSize, 0, 0) // no repetition
	if e.err == nil {
		e.err = out.Flush()
	}
	if e.err != nil {
		return Result{}, fmt.Errorf("ask Nix to build: %w", e.err)
	}
	result, err := read(in, q.Ready)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("it ended without an answer")
		}
		return Result{}, fmt.Errorf("wait for Nix to build: %w", err)
	}
	return result, nil
}

func read(in io.Reader, ready func()) (Result, error) {
	var head [3]uint64 // greeting, version, status
	for i := range head {
		var err error
		if head[i], err = wire.ReadUint64(in); err != nil {
			return Result{}, err
		}
		if i == 0 && head[0] != serverMagic {
			return Result{}, fmt.Errorf("%#x is not the greeting of nix-store --serve", head[0])
		}
		if i == 1 && head[1]>>8 != version>>8 {
			return Result{}, fmt.Errorf("nix-store --serve speaks version %d of its protocol, not 2", head[1]>>8)
		}
		if i == 1 && ready != nil {
			ready()
		}
	}
	message, err := wire.ReadString(in, maxMessage)
	if err != nil {
		return Result{}, err
	}
	for range 4 { // how often and when it was built
		if _, err := wire.ReadUint64(in); err != nil {
			return Result{}, err
		}
	}
	return Result{Status(head[2]), message}, nil
}

// encoder writes until it fails.
type encoder struct {
	w   io.Writer
	err error
}

func (e *encoder) numbers(numbers ...uint64) {
	for _, n := range numbers {
		if e.err == nil {
			e.err = wire.WriteUint64(e.w, n)
		}
	}
}

func (e *encoder) texts(texts ...string) {
	for _, s := range texts {
		if e.err == nil {
			e.err = wire.WriteString(e.w, s)
		}
	}
}

func (e *encoder) list(texts []string) {
	e.numbers(uint64(len(texts)))
	e.texts(texts...)
}

// derivation writes one without the derivations that its inputs come from.
func (e *encoder) derivation(d *derivation.Derivation, inputs []string) {
	e.numbers(uint64(len(d.Outputs)))
	for _, name := range slices.Sorted(maps.Keys(d.Outputs)) {
		o := d.Outputs[name]
		e.texts(name, o.Path, o.HashAlgorithm, o.Hash)
	}
	e.list(inputs)
	e.texts(d.System, d.Builder)
	e.list(d.Args)
	e.numbers(uint64(len(d.Env)))
	for _, name := range slices.Sorted(maps.Keys(d.Env)) {
		e.texts(name, d.Env[name])
	}
}
