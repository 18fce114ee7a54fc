# nix-closure-import exec in the build sandbox of Nix: a closure of a directory and
# a file, used by a Nix that runs in there; and the same with an import.
{ tool, now }:
let
  pkgs = import ../../../nix/offline { };
  file = pkgs.writeText "a-file" "a file\n";
  directory = pkgs.runCommand "a-directory" { } ''
    mkdir -p $out/bin
    ln -s ${file} $out/link
    cp ${pkgs.busybox}/bin/busybox $out/bin/busybox
  '';
in
pkgs.runCommand "exec-in-sandbox"
  {
    inherit directory file now;
    # A path outside the store becomes one of the derivation's inputs.
    tool = builtins.path {
      name = "nix-closure-import";
      path = tool;
    };
    closureInfo = pkgs.closureInfo { rootPaths = [ directory ]; };
    script = ./exec.sh;
  }
  ''
    export PAGER=cat # a build's output is a terminal
    $tool db-image --closure-info $closureInfo -o image
    for options in "" "--method bind" "--db-image image" "--store /build/store"; do
      echo "--- options: $options"
      $tool exec --closure-info $closureInfo $options -- bash -eu $script
    done
    echo "--- env"
    $tool --closure-info $closureInfo --store /build/imported >/dev/null 2>&1
    (eval "$($tool env --store /build/imported)" && bash -eu $script)
    chmod -R u+w imported && rm -r imported
    echo "--- store /"
    $tool exec --closure-info $closureInfo --store / -- $directory/bin/busybox sh -c \
      'ls /nix/store | wc -l && /usr/bin/nix-store --query --requisites $directory'
    echo "--- overlay"
    if $tool exec --closure-info $closureInfo --method overlay -- true; then exit 1; else echo "exit $?"; fi
    echo "--- left"
    ls -A
    touch $out
  ''
