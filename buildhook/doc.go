// Package buildhook is a program for Nix's setting build-hook that builds NixOS VM
// tests on this machine, also where Nix itself would refuse to, and never more of
// them at once than the machine can take. [Run] is its entry point.
//
// Nix asks, for each derivation, whether the hook will build it (package
// protocol). What is not a test goes to Nix's own hook, with the user's remote
// builders, or is declined, and then Nix does what it would do without us. For a
// test there are four steps, each in a file of its own:
//
//  1. [hook.decide]: is it a test that can be built here? Its derivation is read,
//     and, from the start scripts of its machines (package demand), what they need.
//  2. A place within the budget of memory and cores, which all hooks of the machine
//     share (package admission). Waiting happens here, after Nix was told that the
//     test is ours: answering "postpone" would have Nix ask again every five seconds,
//     and start others first.
//  3. The build. It is Nix's: nix-store --serve, in a store that is made for this
//     build in a mount namespace (package mountns) and in which the inputs are valid
//     and visible, none of them copied. So sandbox, users, limits of time, checks of
//     the outputs and scanning for references are Nix's, and a test has no other
//     rights than if Nix had built it. The namespace is one of processes, too: what
//     a killed hook leaves running dies with it.
//  4. The outputs are brought into the store that asked, by [storedb.Import]. Nix
//     itself has locked their paths and waits for us, so asking Nix to add them would
//     never end.
//
// A test whose outputs are in a cache that was named is not built at all: they are
// placed from there, checked by their hashes.
//
// The hook runs as root below the daemon. Of what a derivation's author controls, it
// uses store paths and numbers, which are parsed before anything is done with them,
// and starts nothing of it outside Nix's sandbox. It writes in its own directory, which
// others cannot enter, and at the output paths that Nix has asked for.
package buildhook
