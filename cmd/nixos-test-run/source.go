package main

import (
	"os"

	"github.com/alecthomas/kong"
)

// source says where the value of a setting came from.
type source struct {
	Kind sourceKind `json:"kind"`
	Name string     `json:"name,omitempty"` // of the flag, the variable or the file
}

type sourceKind string

const (
	fromDefault     sourceKind = "default"
	fromFlag        sourceKind = "flag"
	fromArgument    sourceKind = "argument"
	fromEnvironment sourceKind = "environment variable"
	fromFile        sourceKind = "file"
)

func (s source) String() string {
	if s.Name == "" {
		return string(s.Kind)
	}
	return string(s.Kind) + " " + s.Name
}

// sources are those of the flags and of what else they are resolved to, by name.
type sources map[string]source

func sourcesOf(parsed *kong.Context) sources {
	from := sources{}
	for _, flag := range parsed.Model.Flags {
		from[flag.Name] = source{Kind: fromDefault}
		for _, name := range flag.Envs {
			if _, ok := os.LookupEnv(name); ok {
				from[flag.Name] = source{Kind: fromEnvironment, Name: name}
				break
			}
		}
	}
	for _, step := range parsed.Path {
		if step.Flag != nil {
			from[step.Flag.Name] = source{Kind: fromFlag, Name: "--" + step.Flag.Name}
		}
	}
	return from
}
