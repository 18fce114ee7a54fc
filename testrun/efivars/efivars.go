// Package efivars reads and writes the files in which OVMF, the UEFI firmware
// of virtual machines, keeps its variables (OVMF_VARS.fd): a firmware volume
// that holds a store of authenticated variables and, behind it, the scratch
// space of fault tolerant writes. [Read] and [Write] are its entry points, and
// [New] makes an empty store.
//
// The formats are those of the UEFI Platform Initialization Specification
// (firmware volume) and of edk2's headers Guid/VariableFormat.h,
// Guid/SystemNvDataGuid.h and Guid/FaultTolerantWrite.h; the layout of an
// empty store is that of OvmfPkg/VarStore.fdf.inc for an image of 4 MiB.
package efivars

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Attributes of a variable; their meaning is defined by the UEFI
// specification, section 8.2.
type Attributes uint32

// The attributes that a variable may have.
const (
	NonVolatile                       Attributes = 0x01
	BootServiceAccess                 Attributes = 0x02
	RuntimeAccess                     Attributes = 0x04
	HardwareErrorRecord               Attributes = 0x08
	AuthenticatedWriteAccess          Attributes = 0x10
	TimeBasedAuthenticatedWriteAccess Attributes = 0x20
	AppendWrite                       Attributes = 0x40
)

// Variable is one UEFI variable. Its name and GUID identify it.
type Variable struct {
	Name       string     `json:"name"`
	GUID       GUID       `json:"guid"`
	Attributes Attributes `json:"attributes"`
	Data       []byte     `json:"data"`

	// What protects authenticated variables; kept when a store is rewritten.
	monotonicCount uint64
	timestamp      [16]byte
	publicKey      uint32

	replaced bool // about to be deleted in favour of a newer one
}

// Store is the contents of a file of variables.
type Store struct {
	Variables []Variable // in the file's order

	data   []byte // of the file
	layout layout
}

// Parse parses the contents of a file of variables.
func Parse(data []byte) (*Store, error) {
	l, err := parseLayout(data)
	if err != nil {
		return nil, err
	}
	s := &Store{data: slices.Clone(data), layout: l}
	for at := l.variables; ; {
		v, next, ok, err := l.parseVariable(data, at)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		if v.Name != "" {
			s.Variables = append(s.Variables, v)
		}
		at = next
	}
	// A variable that was about to be replaced counts if its successor was
	// not written to its end.
	s.Variables = slices.DeleteFunc(s.Variables, func(v Variable) bool {
		return v.replaced && slices.ContainsFunc(s.Variables, func(w Variable) bool {
			return !w.replaced && w.Name == v.Name && w.GUID == v.GUID
		})
	})
	for i := range s.Variables {
		s.Variables[i].replaced = false
	}
	return s, nil
}

// Set adds variables, or replaces the data and attributes of those that are
// there.
func (s *Store) Set(variables ...Variable) {
	for _, v := range variables {
		i := slices.IndexFunc(s.Variables, func(w Variable) bool { return w.Name == v.Name && w.GUID == v.GUID })
		if i < 0 {
			s.Variables = append(s.Variables, v)
			continue
		}
		s.Variables[i].Data, s.Variables[i].Attributes = v.Data, v.Attributes
	}
}

// Bytes returns the contents of the store's file. What was deleted is gone
// from it, and a fault tolerant write that was under way is forgotten: it
// would bring back what was there before.
func (s *Store) Bytes() ([]byte, error) {
	l := s.layout
	var all []byte
	for _, v := range s.Variables {
		var err error
		if all, err = appendVariable(all, v); err != nil {
			return nil, err
		}
	}
	if room := l.end - l.variables; len(all) > room {
		return nil, fmt.Errorf("the variables take %d bytes, and the store has room for %d", len(all), room)
	}
	data := slices.Clone(s.data)
	rest := data[l.variables:l.end]
	fill(rest[copy(rest, all):])
	if l.working != 0 {
		// The queue of writes is what follows the working block's header, and
		// the space for spare blocks is the rest of the volume.
		volume := binary.LittleEndian.Uint64(data[32:])
		fill(data[l.working+workingHeaderSize : volume])
	}
	return data, nil
}

func fill(b []byte) {
	for i := range b {
		b[i] = erased
	}
}

// The layout of OVMF's variables in an image of 4 MiB.
const (
	blockSize   = 0x1000
	storeSpace  = 0x40000               // header of the volume, store
	eventLog    = blockSize             // unused
	workingSize = blockSize             // working block
	spareSize   = storeSpace + 2*0x1000 // a copy of the three above
	volumeSize  = storeSpace + eventLog + workingSize + spareSize
)

// New returns an empty store, the same as that of OVMF.
func New() *Store {
	data := make([]byte, volumeSize)
	fill(data)
	le := binary.LittleEndian

	h := data[:volumeHeaderSize]
	clear(h)
	copy(h[16:], volumeGUID[:])
	le.PutUint64(h[32:], volumeSize)
	copy(h[40:], volumeSignature)
	// Readable and writable, memory mapped, erased to ones, aligned to 16
	// bytes (EFI_FVB_ATTRIBUTES_2).
	le.PutUint32(h[44:], 0x4feff)
	le.PutUint16(h[48:], volumeHeaderSize)
	h[55] = 2 // revision
	le.PutUint32(h[56:], volumeSize/blockSize)
	le.PutUint32(h[60:], blockSize)
	var sum uint16 // of the header is 0
	for i := 0; i < volumeHeaderSize; i += 2 {
		sum += le.Uint16(h[i:])
	}
	le.PutUint16(h[50:], -sum)

	s := data[volumeHeaderSize : volumeHeaderSize+storeHeaderSize]
	clear(s)
	copy(s, storeGUID[:])
	le.PutUint32(s[16:], storeSpace-volumeHeaderSize)
	s[20], s[21] = storeFormatted, storeHealthy

	const working = storeSpace + eventLog
	w := data[working : working+workingHeaderSize]
	copy(w, workingGUID[:])
	le.PutUint64(w[24:], workingSize-workingHeaderSize)
	// The checksum is that of a header with nothing in it and in its state.
	le.PutUint32(w[16:], crc32.ChecksumIEEE(w))
	w[20] = 0xfe // valid

	return &Store{data: data, layout: layout{
		variables: volumeHeaderSize + storeHeaderSize,
		end:       storeSpace,
		working:   working,
	}}
}

// maxFile is more than any firmware has for its variables; AArch64's file of
// 64 MiB is the largest known.
const maxFile = 256 << 20

// Read reads a file of variables.
func Read(file string) (*Store, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: more than %d bytes", file, maxFile)
	}
	s, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// Write writes a file of variables by way of a temporary name beside it. An
// existing file keeps its mode; a new one is the user's alone.
func Write(file string, s *Store) (err error) {
	data, err := s.Bytes()
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	mode := os.FileMode(0o600)
	if info, err := os.Stat(file); err == nil {
		mode = info.Mode().Perm()
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Close())
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
