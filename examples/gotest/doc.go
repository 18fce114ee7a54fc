// Package gotest shows how to boot and drive a NixOS guest from "go test",
// with no test script and no Python: guest_test.go is to be read, and copied. The
// module is named vm-prebuild, so another one that requires it needs a replace
// directive with the path of a clone.
//
// The guest is that of any NixOS VM test, because its shell is what the test
// framework puts there. Have Nix build one,
//
//	NIXOS_TEST_FLAKE=.#checks.x86_64-linux.my-test.nodes.machine.system.build.vm go test ./examples/gotest
//
// (what else nix build is to be told may follow the attribute; relative paths are
// those of this directory), or name its start script:
//
//	NIXOS_TEST_START_SCRIPT=/nix/store/…-nixos-vm/bin/run-machine-vm go test ./examples/gotest
//
// Where neither is set, the tests are skipped; in CI, they fail.
package gotest
