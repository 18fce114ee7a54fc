# The Go tools.
{
  lib,
  stdenv,
  go,
  buildGoModule,
  # Of nixpkgs whose own Go is older.
  buildGo126Module ? null,
}:
let
  buildModule =
    if lib.versionAtLeast go.version "1.26" then
      buildGoModule
    else if buildGo126Module != null then
      buildGo126Module
    else
      throw ''
        vm-prebuild needs Go 1.26 to be built, and this nixpkgs has ${go.version}
        hint: tests may come from any nixpkgs since 24.05, but the tools take a younger one: in a flake leave out `vm-prebuild.inputs.nixpkgs.follows`, without flakes pass `toolsPkgs` to default.nix'';
in
buildModule {
  pname = "vm-prebuild";
  version = "0.1.0";
  src = import ./source.nix;
  vendorHash = import ./vendor-hash.nix;
  subPackages = [
    "cmd/nix-closure-import"
    "cmd/nix-vm-build-hook"
    "cmd/nixos-test-run"
    "cmd/run-vm-tests"
    "cmd/vm-prebuild"
  ];
  # The store database is plain files of ours: no SQLite extensions are loaded.
  tags = [
    "netgo"
    "osusergo"
    "sqlite_omit_load_extension"
  ];
  ldflags = [
    "-s"
    "-w"
  ]
  # SQLite is C, so it is the C compiler's linker that decides.
  ++ lib.optionals stdenv.hostPlatform.isStatic [
    "-linkmode"
    "external"
    "-extldflags"
    "-static"
  ];
  # The Go tests start QEMU and Nix; `make test` runs them.
  doCheck = false;
  # The names of nixpkgs' programs. The second has no manual of its own.
  postInstall = ''
    ln -s nixos-test-run $out/bin/nixos-test-driver
    man=$out/share/man/man1 bash=$out/share/bash-completion/completions
    zsh=$out/share/zsh/site-functions fish=$out/share/fish/vendor_completions.d
    mkdir -p $man $bash $zsh $fish
    for tool in $out/bin/*; do
      name=''${tool##*/}
      $tool --man >$man/$name.1
      $tool --completion bash >$bash/$name
      $tool --completion zsh >$zsh/_$name
      $tool --completion fish >$fish/$name.fish
    done
    ln -s nixos-test-run $out/bin/generate-driver-symbols
  '';
  meta = {
    description = "NixOS VM tests without the waiting";
    license = lib.licenses.mit;
    platforms = lib.platforms.linux;
    mainProgram = "vm-prebuild";
  };
}
