# What users of vm-prebuild's lib write, without a flake: derivations that use its
# functions, with the tree and so the tools that default.nix has.
{
  # Copy of the repository.
  tree,
  # Something new, for what is to be built again.
  now ? "",
}:
let
  pkgs = import (tree + "/nix/offline") { };
  vm-prebuild = import tree { inherit pkgs; };

  dependency = pkgs.writeText "a-dependency" "a dependency\n";
  package = pkgs.runCommand "a-package" { } ''
    mkdir $out
    ln -s ${dependency} $out/dependency
    # An optimised store has one file for both.
    cp ${dependency} $out/copy
  '';
in
{
  # A build inside of a build, in both cases in Nix's sandbox.
  nixInNix =
    pkgs.runCommand "uses-nix"
      {
        nativeBuildInputs = [
          (vm-prebuild.lib.setupNixInNix {
            inherit pkgs;
            rootPaths = [
              package
              pkgs.bash
              pkgs.busybox
            ];
          })
        ];
        inherit package now;
        inherit (pkgs) bash busybox;
        expression = ./inner.nix;
      }
      ''
        export PAGER=cat # a build's output is a terminal
        mkdir $out
        nix-store --query --requisites $package | sort >$out/requisites
        nix path-info --all | wc -l >$out/paths
        nix-store --verify --check-contents
        nix build --file $expression --argstr package $package --argstr bash $bash --argstr busybox $busybox
        cp "$NIX_REMOTE$(readlink result)" $out/built
        # It is a store like any other: what is in no root's closure can be deleted.
        nix-store --query --roots "$(readlink result)" | grep -q result
        rm result
        nix-store --gc --print-dead | grep -q built-inside
      '';

  # A test that exists, and one that is still a module, for the builder of something.
  prebuiltVMs = vm-prebuild.lib.withPrebuiltVMs {
    inherit pkgs;
    tests = {
      existing = pkgs.testers.runNixOSTest {
        name = "existing";
        nodes.machine = { };
        testScript = ''machine.succeed("tell")'';
      };
      module = tree + "/templates/default/tests/hello.nix";
    };
    modules = [
      { defaults.environment.systemPackages = [ (pkgs.writeShellScriptBin "tell" "echo told") ]; }
    ];
  } (
    pkgs.runCommand "uses-vms" { inherit now; } ''
      mkdir $out
      run-vm-tests --list >$out/tests
      run-vm-tests --jobs 1 -o results --junit-xml $out/junit.xml existing
      nix-closure-import exec --closure-info $VM_PREBUILD_CLOSURE_INFO --db-image $VM_PREBUILD_STORE_DB -- \
        /usr/bin/nix-store --verify
    ''
  );

  # The same closure twice, of which the second store has hard links.
  storeImage = import (tree + "/nix/store-image.nix") {
    hostPkgs = pkgs;
    inherit (pkgs) lib;
    name = "store.img";
    roots = [ package ];
  };
}
