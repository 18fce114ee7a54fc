# Debian's programs as packages. Those that only builds and the host side of a
# test run are links into /usr; those that also run in guests are copies of
# static binaries, so that their closure is complete in the store.
{ lib, stdenv }:
let
  links =
    pname: programs:
    stdenv.mkDerivation {
      name = "debian-${pname}";
      preferLocalBuild = true;
      buildCommand = ''
        mkdir -p $out/bin
        ${lib.concatMapStrings (p: ''
          for dir in /usr/bin /usr/sbin; do
              if [ -e $dir/${p} ]; then ln -s $dir/${p} $out/bin/${p}; fi
          done
          if ! [ -e $out/bin/${p} ]; then
              echo "Debian's ${p} is not installed; nix/offline/setup.sh installs it" >&2
              exit 1
          fi
        '') programs}
      '';
      passthru.pname = pname;
      meta.mainProgram = builtins.head programs;
    };

  busybox = stdenv.mkDerivation {
    name = "debian-busybox-static";
    buildCommand = ''
      mkdir -p $out/bin
      cp /usr/bin/busybox $out/bin/busybox
      for applet in $($out/bin/busybox --list); do
          [ "$applet" = busybox ] || ln -s busybox $out/bin/"$applet"
      done
    '';
    meta.mainProgram = "busybox";
  };

  # The applets of busybox that stand for one of nixpkgs' packages.
  applets =
    pname: programs:
    stdenv.mkDerivation {
      name = "busybox-${pname}";
      preferLocalBuild = true;
      buildCommand = ''
        mkdir -p $out/bin
        for program in ${lib.escapeShellArgs programs}; do
            ln -s ${busybox}/bin/busybox $out/bin/$program
        done
      '';
    };
in
rec {
  inherit busybox;

  bash = stdenv.mkDerivation {
    name = "debian-bash-static";
    buildCommand = ''
      mkdir -p $out/bin
      cp /usr/bin/bash-static $out/bin/bash
      ln -s bash $out/bin/sh
    '';
    meta.mainProgram = "bash";
  };
  runtimeShell = "${bash}/bin/bash";

  coreutils = applets "coreutils" [
    "basename" "cat" "chmod" "chown" "cp" "cut" "date" "dd" "df" "dirname" "du" "echo" "env"
    "expr" "false" "head" "id" "install" "ln" "ls" "md5sum" "mkdir" "mkfifo" "mktemp" "mv" "nproc"
    "od" "paste" "printf" "pwd" "readlink" "realpath" "rm" "rmdir" "seq" "sha256sum" "sleep"
    "sort" "stat" "stty" "sync" "tail" "tee" "test" "timeout" "touch" "tr" "true" "truncate"
    "uname" "uniq" "wc" "whoami" "yes"
  ];
  gnugrep = applets "grep" [ "grep" "egrep" "fgrep" ];
  gnused = applets "sed" [ "sed" ];
  gawk = applets "awk" [ "awk" ];
  findutils = applets "findutils" [ "find" "xargs" ];

  # With line editing, for `nix develop`.
  bashInteractive = links "bash" [ "bash" ];
  # Debian's Python and those of its own packages that nix/ calls by name. Others
  # that a test brings are derivations with their modules in sitePackages.
  # Its setup hook has builders find the modules of their inputs, as nixpkgs' does.
  python3 = stdenv.mkDerivation {
    name = "debian-python3";
    preferLocalBuild = true;
    buildCommand = ''
      mkdir -p $out/bin $out/nix-support
      ln -s /usr/bin/python3 $out/bin/
      cat >$out/nix-support/setup-hook <<'HOOK'
      addPythonPath() {
          if [ -d "$1/${python3.sitePackages}" ]; then export PYTHONPATH=''${PYTHONPATH:+$PYTHONPATH:}$1/${python3.sitePackages}; fi
      }
      addEnvHooks "" addPythonPath
      HOOK
    '';
    meta.mainProgram = "python3";
  } // {
    sitePackages = "lib/python3.11/site-packages";
    pkgs = python3Packages;
    withPackages =
      select:
      let
        packages = select python3Packages;
      in
      if packages == [ ] then
        python3
      else
        stdenv.mkDerivation {
          name = "python3-with-packages";
          preferLocalBuild = true;
          buildCommand = ''
            mkdir -p $out/bin
            {
                echo '#!${runtimeShell}'
                echo 'export PYTHONPATH=${lib.makeSearchPath python3.sitePackages packages}''${PYTHONPATH:+:$PYTHONPATH}'
                echo 'exec ${python3}/bin/python3 "$@"'
            } >$out/bin/python3
            chmod +x $out/bin/python3
          '';
        };
  };
  python3Packages = {
    python = python3;
    pyflakes = stdenv.mkDerivation {
      name = "debian-pyflakes";
      preferLocalBuild = true;
      buildCommand = ''
        mkdir -p $out/bin
        ln -s /usr/bin/pyflakes3 $out/bin/pyflakes
      '';
    };
  };
  mypy = links "mypy" [ "mypy" ];

  # The part of nixpkgs' breakpointHook that the debug hook of tests uses: a command
  # that enters the sandbox in which `sleep NUMBER` runs, and runs another there.
  breakpointHook.attach = stdenv.mkDerivation {
    name = "attach";
    preferLocalBuild = true;
    buildCommand = ''
      cp ${./attach.sh} $out
      chmod +x $out
    '';
  };
  qemu = links "qemu" [ "qemu-system-x86_64" "qemu-img" ];
  qemu_test = qemu;
  jq = links "jq" [ "jq" ];
  git = links "git" [ "git" ];
  gnutar = links "tar" [ "tar" ];
  nix = links "nix" [ "nix" "nix-build" "nix-instantiate" "nix-store" ];

  # Debian 12's mkfs.erofs is older than nixpkgs', which reads archives and writes labels.
  erofs-utils = stdenv.mkDerivation {
    name = "debian-erofs-utils";
    buildCommand = ''
      mkdir -p $out/bin
      cp ${./mkfs-erofs.py} $out/bin/mkfs.erofs
      chmod +x $out/bin/mkfs.erofs
    '';
    meta.mainProgram = "mkfs.erofs";
  };
  vde2 = links "vde2" [ "vde_switch" ];
}
