package starlark

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"vm-prebuild/testrun/script/symbols"
)

// maxNesting bounds how deep a value that goes to the driver may be; one that
// contains itself is deeper than any.
const maxNesting = 100

// fromStarlark returns v as encoding/json writes it.
func fromStarlark(v starlark.Value, depth int) (any, error) {
	if depth > maxNesting {
		return nil, errors.New("the value is nested too deep")
	}
	switch v := v.(type) {
	case starlark.NoneType:
		return nil, nil
	case starlark.Bool:
		return bool(v), nil
	case starlark.String:
		return string(v), nil
	case starlark.Bytes:
		return base64.StdEncoding.EncodeToString([]byte(v)), nil
	case starlark.Int:
		return json.Number(v.String()), nil
	case starlark.Float:
		return float64(v), nil
	case *machineValue:
		return v.info.Name, nil
	case *starlark.Dict:
		m := map[string]any{}
		for _, item := range v.Items() {
			key, ok := starlark.AsString(item[0])
			if !ok {
				return nil, fmt.Errorf("got a dict with a key of type %s, want str", item[0].Type())
			}
			value, err := fromStarlark(item[1], depth+1)
			if err != nil {
				return nil, err
			}
			m[key] = value
		}
		return m, nil
	case starlark.Iterable:
		list := []any{}
		for e := range starlark.Elements(v) {
			value, err := fromStarlark(e, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return list, nil
	}
	return nil, fmt.Errorf("a %s cannot be passed to the driver", v.Type())
}

// toStarlark returns a result of the driver as a value of the given type.
func toStarlark(result any, as symbols.Type) (starlark.Value, error) {
	switch v := result.(type) { // what needs no detour
	case nil:
		return starlark.None, nil
	case string:
		return starlark.String(v), nil
	case bool:
		return starlark.Bool(v), nil
	}
	text, err := json.Marshal(result)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var plain any
	if err := d.Decode(&plain); err != nil {
		return nil, err
	}
	v := fromJSON(plain)
	switch as {
	case symbols.StatusOut:
		if l, ok := v.(*starlark.List); ok {
			return starlark.Tuple(slices.Collect(starlark.Elements(l))), nil
		}
	case "CommandResult":
		if d, ok := v.(*starlark.Dict); ok {
			return starlarkstruct.FromKeywords(starlark.String("CommandResult"), d.Items()), nil
		}
	default:
	}
	return v, nil
}

// fromJSON converts what encoding/json reads with UseNumber.
func fromJSON(v any) starlark.Value {
	switch v := v.(type) {
	case bool:
		return starlark.Bool(v)
	case string:
		return starlark.String(v)
	case json.Number:
		if i, ok := new(big.Int).SetString(v.String(), 10); ok && !strings.ContainsAny(v.String(), ".eE") {
			return starlark.MakeBigInt(i)
		}
		f, _ := v.Float64() // out of range: an infinity
		return starlark.Float(f)
	case []any:
		list := make([]starlark.Value, len(v))
		for i, e := range v {
			list[i] = fromJSON(e)
		}
		return starlark.NewList(list)
	case map[string]any:
		d := starlark.NewDict(len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			_ = d.SetKey(starlark.String(key), fromJSON(v[key])) // strings can be keys
		}
		return d
	}
	return starlark.None
}
