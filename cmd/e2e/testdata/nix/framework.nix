# Tests that the framework of nix/offline evaluates, with our module or with our
# overlay, in the ways in which those of nixpkgs are used.
{
  # Directory of the static binaries.
  bin,
  # Tests that are run are another one each time: Nix would not run them again.
  now,
  # Arguments of nix/offline.
  offline ? { },
}:
let
  pkgs = import ../../../../nix/offline offline;
  inherit (pkgs) lib;
  tools = _: import ./tools.nix bin;
  testModule = import ../../../../nix/module.nix { vm-prebuild = tools; };
  overlaid = pkgs.extend (import ../../../../nix/overlay.nix { vm-prebuild = tools; });

  # Debian and busybox start in no time; tests here are about what is around.
  machine.nodes.machine.virtualisation.memorySize = 256;

  # A test of nixpkgs' that knows nothing of us.
  plain = script: {
    imports = [ machine ];
    name = "plain";
    testScript = script;
  };
  test =
    script: module:
    pkgs.testers.runNixOSTest {
      imports = [
        testModule
        (plain script)
        module
      ];
    };
  passing = ''
    # ${now}
    machine.succeed("true")
    print("the script ran")
  '';
  failing = ''
    # ${now}
    machine.succeed("true")
    machine.screenshot("before")
    machine.succeed("echo it is broken >&2; false")  # this line fails
  '';

  warmed = {
    nodes.machine.environment.variables.NOW = toString now;
    prebuild = {
      warm.enable = true;
      warm.readyPoint = "unit:backdoor.service";
      # There may be a KVM here, and no builder that offers it.
      accel = "tcg";
    };
  };

  greeting = pkgs.writeTextFile {
    name = "python3-greeting";
    destination = "/${pkgs.python3.sitePackages}/greeting/__init__.py";
    text = ''
      def greet(name: str) -> str:
          return f"hello {name}"
    '';
    checkPhase = "touch $out/${pkgs.python3.sitePackages}/greeting/py.typed";
  };

  optionNames =
    prefix: options:
    lib.concatMap (
      name:
      let
        path = prefix ++ [ name ];
      in
      if (options.${name}._type or null) == "option" then
        [ (lib.concatStringsSep "." path) ]
      else
        optionNames path options.${name}
    ) (lib.attrNames options);
in
{
  # The option names of the framework itself.
  options =
    (pkgs.testers.runNixOSTest (
      { options, ... }:
      {
        imports = [ (plain passing) ];
        passthru.optionNames = optionNames [ ] options;
      }
    )).optionNames;
  passthru = lib.attrNames (test passing { }).passthru;

  # How a test without driver fails to be evaluated.
  driverless = (pkgs.testers.runNixOSTest (plain passing)).driver;
  inBoth =
    (test passing {
      containers.machine = { };
    }).config.allMachines;
  overlaidContainers =
    (overlaid.testers.runNixOSTest {
      imports = [ (plain passing) ];
      containers.box = { };
    }).driver;
  noBackend = (test passing { prebuild.backend = "nspawn"; }).driver;

  # What is made of tests after the fact.
  changed =
    let
      extended = (test passing { }).extend {
        modules = [
          {
            name = lib.mkForce "extended";
            nodes.second = { };
          }
        ];
      };
      onlyNow = (pkgs.testers.runNixOSTest (plain passing)).extend { modules = [ testModule ]; };
      renamed = (test passing { prebuild.report.keepOnFailure = true; }).overrideTestDerivation (old: {
        name = "renamed-${old.name}";
      });
      again = renamed.overrideTestDerivation (final: old: { name = "${old.name}-again"; });
      nixos = (test passing { }).extendNixOS {
        module = { settings, ... }: { environment.variables.EXTENDED = settings; };
        specialArgs.settings = "yes";
      };
    in
    {
      extended = extended.name;
      extendedNodes = lib.attrNames extended.nodes;
      onlyNow = onlyNow.driver.name;
      twice = (onlyNow.extend { modules = [ testModule ]; }).driver.outPath == onlyNow.driver.outPath;
      renamed = renamed.name;
      again = again.name;
      kept = lib.hasSuffix "hydra-build-products\n\n" again.config.rawTestDerivation.drvAttrs.buildCommand;
      forced =
        (test passing {
          prebuild.report.keepOnFailure = true;
          rawTestDerivationArg = lib.mkForce (_: {
            name = "forced";
            buildCommand = "";
          });
        }).name;
      script =
        (test passing {
          testScript = lib.mkForce ({ nodes, ... }: "${nodes.machine.system.name}.start()");
        }).config.testScriptString;
      variables = nixos.nodes.machine.environment.variables;
      interactive = (test passing { interactive.name = lib.mkForce "by-hand"; }).driverInteractive.name;
    };

  # Drivers whose scripts are checked as they are built.
  drivers = lib.mapAttrs (_: module: (test passing module).driver) {
    good = { };
    wrongType = {
      testScript = lib.mkForce ''
        start_all()
        machine.succed("true")
      '';
    };
    untyped = {
      testScript = lib.mkForce ''
        machine.succed("true")
      '';
      skipTypeCheck = true;
    };
    unused = {
      testScript = lib.mkForce ''
        import json
        start_all()
      '';
    };
    unlinted = {
      testScript = lib.mkForce ''
        import json
        start_all()
      '';
      skipLint = true;
    };
    malformed = {
      testScript = lib.mkForce "if true {\n}\n";
      skipTypeCheck = true;
      skipLint = true;
    };
    # Names that Python does not have, no machine called "machine", no VLAN.
    named = {
      nodes = lib.mkForce {
        web-1 = {
          virtualisation.vlans = [ ];
        };
      };
      testScript = lib.mkForce "assert machine is web_1\n";
    };
    nobody = {
      nodes = lib.mkForce { };
      testScript = lib.mkForce "start_all()\n";
    };
    imports = {
      extraPythonPackages = _: [ greeting ];
      testScript = lib.mkForce ''
        from greeting import greet
        print(greet("world"))
      '';
    };
    wrongImport = {
      extraPythonPackages = _: [ greeting ];
      testScript = lib.mkForce ''
        from greeting import greet
        print(greet(1))
      '';
    };
    starlark = {
      prebuild.scriptLanguage = "starlark";
      testScript = lib.mkForce ''
        assert_equal(machine.succeed("echo star"), "star\n")
        print("the Starlark script ran")
      '';
    };
  };
  overlaidDrivers = lib.mapAttrs (_: module: (overlaid.testers.runNixOSTest module).driver) {
    good = plain passing;
    wrongType = plain "machine.succed('true')\n";
    imports = {
      imports = [ (plain "from greeting import greet\nprint(greet('world'))\n") ];
      extraPythonPackages = _: [ greeting ];
    };
  };
  driverPackage = {
    overridden =
      (overlaid.nixos-test-driver.override {
        enableOCR = true;
        qemu_pkg = pkgs.busybox;
      }).drvAttrs.buildCommand;
    inherit (overlaid.nixos-test-driver) meta;
  };

  # What is built anew when a script, or a machine, changes.
  warmChanges =
    let
      states = script: module: (test script { imports = [ warmed module ]; }).warmStates.machine.drvPath;
      first = states passing { };
    in
    {
      script = states "machine.fail('true')\n" { } == first;
      report = states passing { prebuild.report.html = true; } == first;
      name = states passing { name = lib.mkForce "renamed"; } == first;
      named = states "machine.succeed('cat ${pkgs.writeText "named" "x"}')\n" { } == first;
      readyPoint = states passing { prebuild.warm.readyPoint = lib.mkForce "shell"; } == first;
      machine = states passing { nodes.machine.environment.variables.OTHER = "x"; } == first;
      interactive =
        builtins.length (builtins.split "NIXOS_TEST_WARM" (test passing warmed).driverInteractive.drvAttrs.buildCommand)
        > 1;
      off = (test passing { }) ? warmStates;
    };
  badReadyPoint = (test passing { prebuild.warm.readyPoint = "soon"; }).config.prebuild.warm.readyPoint;

  # Tests that are run: by the sandbox as the derivation, by hand as the driver.
  runs = {
    pass = test passing { };
    kept = test failing {
      prebuild.report = {
        keepOnFailure = true;
        html = true;
        junit = true;
      };
    };
    expectedFailure = pkgs.testers.testBuildFailure (test failing { }).config.rawTestDerivation;
    debug = test ''
      # ${now}
      debug.breakpoint()
      machine.succeed("test -e /root/fixed")
      print("the script went on")
      machine.fail("true")
    '' {
      enableDebugHook = true;
      # The guests here have no SSH server.
      sshBackdoor.enable = false;
    };
    overlaid = overlaid.testers.runNixOSTest (plain passing);
    starlark = test ''
      # ${now}
      assert_equal(machine.succeed("echo star"), "star\n")
      print("the script ran")
    '' {
      prebuild.scriptLanguage = "starlark";
      prebuild.report.keepOnFailure = true;
    };
    # What the script names is in the machines' store, and nothing else of the host's.
    stored =
      let
        named = pkgs.writeText "named" "in the image";
        # It is in the host's store: the driver has it.
        other = builtins.unsafeDiscardStringContext "${pkgs.qemu_test}";
      in
      test ''
        # ${now}
        start_all()
        assert first.succeed("cat ${named}") == "in the image"
        # It is behind the disks that tests know by their places.
        first.succeed("mount | grep '^/dev/vdb on /nix/.ro-store type erofs'")
        second.succeed("mount | grep '^/dev/vdc on /nix/.ro-store type erofs'")
        second.fail("test -e ${other}")
        second.succeed("echo new >/nix/store/written")
        first.fail("test -e /nix/store/written")
        print("the script ran")
      '' {
        prebuild.storeImage = true;
        nodes = lib.mkForce {
          first.virtualisation.memorySize = 256;
          second = {
            virtualisation.memorySize = 256;
            virtualisation.guest = "systemd";
          };
        };
      };
    # It asks for states and keeps what cannot be saved.
    unsavable = test passing {
      imports = [ warmed ];
      prebuild.storeImage = false;
    };
    # Of each run of this file's tests, machines that have not booted before.
    warm = test passing warmed;
    warmEdited = test ''
      assert "${now}" in machine.succeed("echo $NOW")
      print("the edited script ran")
    '' warmed;
    warmPair = test ''
      # ${now}
      start_all()
      client.succeed("ping -c 1 server >&2")
      print("the script ran")
    '' {
      imports = [ warmed ];
      nodes = lib.mkForce {
        client.virtualisation.memorySize = 256;
        server = {
          virtualisation.memorySize = 256;
          systemd.services.told = {
            wantedBy = [ "multi-user.target" ];
            serviceConfig.Type = "oneshot";
            script = "echo told >/run/told";
          };
        };
      };
      prebuild.warm.readyPoint = lib.mkForce "command:true";
    };
    interactive = (test passing { interactive.nodes.machine.environment.variables.BY = "hand"; }).driverInteractive;
  };
}
