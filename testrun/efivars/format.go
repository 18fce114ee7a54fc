package efivars

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf16"
)

// Sizes of the structures, in bytes.
const (
	volumeHeaderSize   = 0x48 // EFI_FIRMWARE_VOLUME_HEADER with one block map entry
	storeHeaderSize    = 28   // VARIABLE_STORE_HEADER
	variableHeaderSize = 60   // AUTHENTICATED_VARIABLE_HEADER
	workingHeaderSize  = 32   // EFI_FAULT_TOLERANT_WORKING_BLOCK_HEADER
)

var (
	// EFI_SYSTEM_NV_DATA_FV_GUID of edk2's Guid/SystemNvDataGuid.h
	volumeGUID = mustGUID("fff12b8d-7696-4c8b-a985-2747075b4f50")
	// EFI_AUTHENTICATED_VARIABLE_GUID of Guid/AuthenticatedVariableFormat.h
	storeGUID = mustGUID("aaf32c78-947b-439a-a180-2e144ec37792")
	// EDKII_WORKING_BLOCK_SIGNATURE_GUID of Guid/SystemNvDataGuid.h
	workingGUID = mustGUID("9e58292b-7c68-497d-a0ce-6500fd9f1b95")
)

const (
	volumeSignature = "_FVH"

	storeFormatted = 0x5a
	storeHealthy   = 0xfe

	variableStart = 0x55aa
	// A variable's state loses one bit after the other: header written, added,
	// about to be replaced, deleted.
	stateAdded             = 0x3f
	stateInDeletion        = 0xfe // and-ed to stateAdded
	stateDeleted           = 0xfd // and-ed to one of them
	variableAlignment      = 4
	erased            byte = 0xff
)

// layout says where things are in a file of variables.
type layout struct {
	variables int // offset of the first variable
	end       int // offset behind the last byte for variables
	working   int // offset of the working block of fault tolerant writes; 0 if there is none
}

// parseLayout finds the structures around the variables: the header of the
// firmware volume (UEFI Platform Initialization Specification, volume 3,
// 3.2.1), the one of the variable store and the working block.
func parseLayout(data []byte) (layout, error) {
	if len(data) < volumeHeaderSize {
		return layout{}, fmt.Errorf("%d bytes are too few for a firmware volume", len(data))
	}
	if string(data[40:44]) != volumeSignature || GUID(data[16:32]) != volumeGUID {
		return layout{}, errors.New("not a firmware volume with UEFI variables")
	}
	volume := binary.LittleEndian.Uint64(data[32:])
	header := int(binary.LittleEndian.Uint16(data[48:]))
	if volume > uint64(len(data)) {
		return layout{}, fmt.Errorf("the firmware volume has %d bytes, the file only %d", volume, len(data))
	}
	if header < volumeHeaderSize || header+storeHeaderSize > int(volume) {
		return layout{}, fmt.Errorf("header of %d bytes in a firmware volume of %d", header, volume)
	}
	store := data[header:volume]
	if GUID(store[:16]) != storeGUID {
		return layout{}, fmt.Errorf("a store of variables of the kind %v, want authenticated variables, %v", GUID(store[:16]), storeGUID)
	}
	if store[20] != storeFormatted || store[21] != storeHealthy {
		return layout{}, fmt.Errorf("the store of variables is not healthy (format %#x, state %#x)", store[20], store[21])
	}
	size := binary.LittleEndian.Uint32(store[16:])
	if size < storeHeaderSize || uint64(size) > uint64(len(store)) {
		return layout{}, fmt.Errorf("a store of %d bytes in a firmware volume of %d", size, volume)
	}
	l := layout{variables: header + storeHeaderSize, end: header + int(size)}
	// The working block lies on a flash block behind the store; before it may
	// come an event log.
	const block = 0x1000
	for at := (l.end + block - 1) / block * block; at+workingHeaderSize <= int(volume); at += block {
		if GUID(data[at:at+16]) == workingGUID {
			l.working = at
			break
		}
	}
	return l, nil
}

// align returns the first offset from at on where a variable may begin.
// Offsets count from the begin of the store, whose header is aligned.
func (l layout) align(at int) int {
	off := at - l.variables
	return l.variables + (off+variableAlignment-1)/variableAlignment*variableAlignment
}

// parseVariable reads the variable at the given offset. ok is unset where no
// more follow; a variable that is not valid any more has no name.
func (l layout) parseVariable(data []byte, at int) (v Variable, next int, ok bool, err error) {
	if at+variableHeaderSize > l.end || binary.LittleEndian.Uint16(data[at:]) != variableStart {
		return Variable{}, 0, false, nil
	}
	h := data[at : at+variableHeaderSize]
	nameSize, dataSize := binary.LittleEndian.Uint32(h[36:]), binary.LittleEndian.Uint32(h[40:])
	room := uint64(l.end - at - variableHeaderSize)
	state := h[2]
	valid := state == stateAdded || state == stateAdded&stateInDeletion
	if uint64(nameSize)+uint64(dataSize) > room {
		if !valid && nameSize == 0xffffffff {
			return Variable{}, 0, false, nil // its header was not written to its end
		}
		return Variable{}, 0, false, fmt.Errorf("variable at %#x: %d bytes of name and %d of data are more than there is room", at, nameSize, dataSize)
	}
	name := at + variableHeaderSize
	body := name + int(nameSize)
	next = l.align(body + int(dataSize))
	if !valid {
		return Variable{}, next, true, nil
	}
	v = Variable{
		GUID:           GUID(h[44:60]),
		Attributes:     Attributes(binary.LittleEndian.Uint32(h[4:])),
		Data:           slices.Clone(data[body : body+int(dataSize)]),
		monotonicCount: binary.LittleEndian.Uint64(h[8:]),
		timestamp:      [16]byte(h[16:32]),
		publicKey:      binary.LittleEndian.Uint32(h[32:]),
		replaced:       state != stateAdded,
	}
	v.Name, err = decodeName(data[name:body])
	if err != nil {
		return Variable{}, 0, false, fmt.Errorf("variable at %#x: %w", at, err)
	}
	return v, next, true, nil
}

// appendVariable appends a variable as it is in a store.
func appendVariable(b []byte, v Variable) ([]byte, error) {
	name, err := encodeName(v.Name)
	if err != nil {
		return nil, err
	}
	b = binary.LittleEndian.AppendUint16(b, variableStart)
	b = append(b, stateAdded, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(v.Attributes))
	b = binary.LittleEndian.AppendUint64(b, v.monotonicCount)
	b = append(b, v.timestamp[:]...)
	b = binary.LittleEndian.AppendUint32(b, v.publicKey)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v.Data)))
	b = append(b, v.GUID[:]...)
	b = append(b, name...)
	b = append(b, v.Data...)
	for len(b)%variableAlignment != 0 {
		b = append(b, erased)
	}
	return b, nil
}

// decodeName decodes UTF-16 up to its NUL.
func decodeName(b []byte) (string, error) {
	if len(b) < 2 || len(b)%2 != 0 {
		return "", fmt.Errorf("a name of %d bytes", len(b))
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	last := len(units) - 1
	if slices.Index(units, 0) != last {
		return "", errors.New("a name that does not end in the one NUL that it has")
	}
	return string(utf16.Decode(units[:last])), nil
}

func encodeName(name string) ([]byte, error) {
	if name == "" {
		return nil, errors.New("a variable without a name")
	}
	units := utf16.Encode([]rune(name))
	if slices.Contains(units, 0) {
		return nil, fmt.Errorf("variable name %q holds a NUL", name)
	}
	b := make([]byte, 0, 2*len(units)+2)
	for _, u := range append(units, 0) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b, nil
}
