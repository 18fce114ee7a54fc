# What the tools are built from: only what Go reads. No change of nix/, of an example
# or of a test builds them anew.
let
  notAtTop = [
    ".cache"
    ".ci"
    ".git"
    "Makefile"
    "README.md"
    "bin"
    "default.nix"
    "docs"
    "examples"
    "flake.lock"
    "flake.nix"
    "nix"
    "result"
    "templates"
    "vendor"
  ];
  notBelow = [
    "bench"
    "e2e"
    "testdata"
  ];
  top = toString ../.;
in
builtins.path {
  name = "vm-prebuild-source";
  path = ../.;
  filter =
    path: _:
    let
      name = baseNameOf path;
    in
    !(dirOf path == top && builtins.elem name notAtTop)
    && !(builtins.elem name notBelow)
    && builtins.match ".*_test\\.go" name == null;
}
