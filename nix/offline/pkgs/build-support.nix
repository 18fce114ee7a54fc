# Builders of small things: text, links, scripts, closures.
{
  lib,
  stdenv,
  pkgs,
}:
let
  runCommandWith =
    name: attrs: buildCommand:
    stdenv.mkDerivation ({ inherit name buildCommand; } // attrs);

  # File contents go through a variable of the builder, not through the shell.
  writeTextFile =
    {
      name,
      text,
      executable ? false,
      destination ? "",
      checkPhase ? "",
      meta ? { },
      passthru ? { },
    }:
    runCommandWith name
      {
        inherit text meta passthru;
        preferLocalBuild = true;
        allowSubstitutes = false;
      }
      ''
        target=$out${lib.escapeShellArg destination}
        mkdir -p "$(dirname "$target")"
        printf %s "$text" >"$target"
        ${lib.optionalString executable ''chmod +x "$target"''}
        ${checkPhase}
      '';
in
{
  runCommand = name: attrs: runCommandWith name attrs;
  runCommandLocal =
    name: attrs:
    runCommandWith name (
      {
        preferLocalBuild = true;
        allowSubstitutes = false;
      }
      // attrs
    );

  inherit writeTextFile;
  writeText = name: text: writeTextFile { inherit name text; };
  # The store paths that are in a text, one a line.
  writeStringReferencesToFile =
    text:
    let
      parts = builtins.split "(${builtins.storeDir}/[0-9a-z]{32}-[-+._?=0-9a-zA-Z]+)" (
        builtins.unsafeDiscardStringContext text
      );
      paths = lib.unique (map builtins.head (builtins.filter builtins.isList parts));
    in
    writeTextFile {
      name = "string-references";
      text = builtins.appendContext (lib.concatMapStrings (path: "${path}\n") paths) (builtins.getContext text);
    };
  writeTextDir =
    path: text:
    writeTextFile {
      name = baseNameOf path;
      destination = "/${path}";
      inherit text;
    };
  writeScript =
    name: text:
    writeTextFile {
      inherit name text;
      executable = true;
    };
  writeShellScript =
    name: text:
    writeTextFile {
      inherit name;
      executable = true;
      text = "#!${pkgs.runtimeShell}\n${text}";
      checkPhase = ''${pkgs.runtimeShell} -n "$target"'';
    };
  writeShellScriptBin =
    name: text:
    writeTextFile {
      inherit name;
      executable = true;
      destination = "/bin/${name}";
      text = "#!${pkgs.runtimeShell}\n${text}";
      checkPhase = ''${pkgs.runtimeShell} -n "$target"'';
      meta.mainProgram = name;
    };
  # nixpkgs also runs shellcheck; here the syntax is checked.
  writeShellApplication =
    {
      name,
      text,
      runtimeInputs ? [ ],
      runtimeEnv ? { },
      meta ? { },
      passthru ? { },
      checkPhase ? null,
      bashOptions ? [
        "errexit"
        "nounset"
        "pipefail"
      ],
    }:
    writeTextFile {
      inherit name passthru;
      executable = true;
      destination = "/bin/${name}";
      text =
        "#!${pkgs.runtimeShell}\n"
        + lib.concatMapStrings (o: "set -o ${o}\n") bashOptions
        + lib.concatStrings (
          lib.mapAttrsToList (n: v: "export ${n}=${lib.escapeShellArg v}\n") runtimeEnv
        )
        + lib.optionalString (runtimeInputs != [ ]) ''

          export PATH="${lib.makeBinPath runtimeInputs}:$PATH"
        ''
        + "\n${text}\n";
      checkPhase = if checkPhase != null then checkPhase else ''${pkgs.runtimeShell} -n "$target"'';
      meta = {
        mainProgram = name;
      }
      // meta;
    };

  # A tree of links to the files of several trees; the first one wins.
  symlinkJoin =
    {
      name,
      paths,
      postBuild ? "",
      meta ? { },
      passthru ? { },
      ...
    }@args:
    runCommandWith name
      (
        removeAttrs args [
          "name"
          "paths"
          "postBuild"
        ]
        // {
          inherit paths;
          preferLocalBuild = true;
        }
      )
      ''
        mkdir -p $out
        for path in $paths; do
            cp -rsn --no-preserve=mode "$path/." $out/
        done
        ${postBuild}
      '';

  # For `nix develop`: an environment with the packages' programs.
  mkShell =
    {
      packages ? [ ],
      ...
    }@args:
    stdenv.mkDerivation (
      {
        name = "shell";
        buildCommand = "export >$out";
      }
      // removeAttrs args [ "packages" ]
      // {
        nativeBuildInputs = packages ++ args.nativeBuildInputs or [ ];
      }
    );

  linkFarm =
    name: entries:
    let
      list =
        if builtins.isList entries then
          entries
        else
          lib.mapAttrsToList (n: path: {
            name = n;
            inherit path;
          }) entries;
    in
    runCommandWith name { preferLocalBuild = true; } ''
      mkdir -p $out
      ${lib.concatMapStrings (e: ''
        mkdir -p "$(dirname $out/${lib.escapeShellArg e.name})"
        ln -s ${lib.escapeShellArg "${e.path}"} $out/${lib.escapeShellArg e.name}
      '') list}
    '';

  # The three files of nixpkgs' closureInfo, byte for byte.
  closureInfo =
    { rootPaths }:
    stdenv.mkDerivation {
      name = "closure-info";
      __structuredAttrs = true;
      exportReferencesGraph.closure = rootPaths;
      preferLocalBuild = true;
      nativeBuildInputs = [ pkgs.jq ];
      emptyClosure = rootPaths == [ ];
      buildCommand = ''
        mkdir $out
        if [ -n "$emptyClosure" ]; then
            echo 0 >$out/total-nar-size
            touch $out/registration $out/store-paths
        else
            jq -r '[.closure[].narSize] | add' .attrs.json >$out/total-nar-size
            jq -r '.closure[] | .path, .narHash, .narSize, "", (.references | length), .references[]' .attrs.json >$out/registration
            jq -r '.closure[].path' .attrs.json >$out/store-paths
        fi
      '';
    };

  # A script that the builders of derivations source which have it among their inputs.
  makeSetupHook =
    {
      name,
      substitutions ? { },
      meta ? { },
      passthru ? { },
    }:
    script:
    runCommandWith name { inherit meta passthru; } ''
      mkdir -p $out/nix-support
      substitute ${script} $out/nix-support/setup-hook ${
        lib.concatStringsSep " " (
          lib.mapAttrsToList (n: v: "--subst-var-by ${n} ${lib.escapeShellArg "${v}"}") substitutions
        )
      }
    '';

  makeWrapper = pkgs.makeSetupHook {
    name = "make-wrapper-hook";
    substitutions.shell = pkgs.runtimeShell;
  } ./make-wrapper.sh;
}
