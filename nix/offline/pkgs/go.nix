# buildGoModule: a fixed-output derivation makes the vendor directory with
# `go mod vendor`, a second one builds from it without network. The vendor
# directory, and so vendorHash, is the same as with nixpkgs.
{ lib, stdenv }:
let
  go = stdenv.mkDerivation {
    pname = "debian-go";
    version = "1.26"; # or later: go.mod asks for it, and env.sh passes the machine's on
    preferLocalBuild = true;
    # env.sh shows the machine's Go toolchain to the sandbox under this path.
    buildCommand = ''
      mkdir -p $out/bin
      ln -s /offline-go/bin/go /offline-go/bin/gofmt $out/bin/
    '';
    meta.mainProgram = "go";
  };

  environment = ''
    export GOCACHE=$TMPDIR/go-cache GOPATH=$TMPDIR/go GO111MODULE=on GOTOOLCHAIN=local
  '';

  buildGoModule =
    {
      src,
      vendorHash,
      name ? "${args.pname}-${args.version}",
      subPackages ? [ ],
      tags ? [ ],
      ldflags ? [ ],
      nativeBuildInputs ? [ ],
      doCheck ? true,
      ...
    }@args:
    let
      goModules = stdenv.mkDerivation {
        name = "${name}-go-modules";
        inherit src;
        nativeBuildInputs = nativeBuildInputs ++ [ go ];
        impureEnvVars = [
          "GOPROXY"
          "http_proxy"
          "https_proxy"
          "no_proxy"
        ];
        outputHashMode = "recursive";
        outputHash = vendorHash;
        buildPhase = ''
          ${environment}
          go mod vendor
          mkdir -p vendor
        '';
        installPhase = ''
          cp -r --reflink=auto vendor $out
        '';
        dontFixup = true;
      };
    in
    stdenv.mkDerivation (
      removeAttrs args [
        "vendorHash"
        "tags"
        "ldflags"
        "subPackages"
      ]
      // {
        inherit name doCheck;
        nativeBuildInputs = nativeBuildInputs ++ [ go ];
        configurePhase = ''
          ${environment}
          export GOPROXY=off GOSUMDB=off GOFLAGS="-mod=vendor -trimpath"
          ${lib.optionalString (vendorHash != null) "cp -r --reflink=auto ${goModules} vendor"}
        '';
        buildPhase = ''
          runHook preBuild
          go install -p "$NIX_BUILD_CORES" \
              -tags=${lib.escapeShellArg (builtins.concatStringsSep "," tags)} \
              -ldflags=${lib.escapeShellArg (builtins.concatStringsSep " " (ldflags ++ [ "-buildid=" ]))} \
              ${if subPackages == [ ] then "./..." else lib.concatMapStringsSep " " (p: "./${p}") subPackages}
          runHook postBuild
        '';
        checkPhase =
          args.checkPhase or ''
            runHook preCheck
            go test -vet=off ./...
            runHook postCheck
          '';
        installPhase = ''
          runHook preInstall
          mkdir -p $out
          cp -r "$GOPATH/bin" $out
          runHook postInstall
        '';
        passthru = {
          inherit go goModules vendorHash;
        }
        // args.passthru or { };
      }
    );
in
{
  inherit go buildGoModule;
}
