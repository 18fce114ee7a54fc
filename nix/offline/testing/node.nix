# The options of a node: those of NixOS' that the guests of this folder can
# honour. Any other is an error, not silence.
{
  config,
  lib,
  pkgs,
  guests,
  name,
  allNodes,
  nodes,
  # The test's.
  qemu,
  ...
}:
let
  inherit (lib) mkOption types;
  option = type: default: mkOption { inherit type default; };
  strings = option (types.listOf types.str) [ ];

  # Nodes are numbered in the order of their names, as in nixpkgs.
  numberOf = n: builtins.foldl' (acc: x: if x <= n then acc + 1 else acc) 0 allNodes;
  address = n: "192.168.${toString (builtins.head nodes.${n}.virtualisation.vlans)}.${toString (numberOf n)}";
  onVlan = builtins.filter (n: nodes.${n}.virtualisation.vlans != [ ]) allNodes;

  service = {
    options = {
      enable = option types.bool true;
      description = option types.str "";
      wantedBy = strings;
      requiredBy = strings;
      after = strings;
      before = strings;
      wants = strings;
      requires = strings;
      bindsTo = strings;
      partOf = strings;
      conflicts = strings;
      path = option (types.listOf types.raw) [ ];
      environment = option (types.attrsOf types.str) { };
      preStart = option types.lines "";
      script = option types.lines "";
      postStop = option types.lines "";
      unitConfig = option (types.attrsOf types.anything) { };
      serviceConfig = option (types.attrsOf types.anything) { };
    };
  };
  user = {
    options = {
      # All users here are of the kind that logs in; for the modules that say so.
      isNormalUser = option types.bool true;
      uid = option (types.nullOr types.int) null;
      home = option (types.nullOr types.str) null;
      password = option (types.nullOr types.str) null;
      linger = option types.bool false;
    };
  };
  etcFile =
    { config, name, ... }:
    {
      options = {
        text = option (types.nullOr types.lines) null;
        mode = option types.str "0644";
        source = mkOption { type = types.raw; };
      };
      config.source = lib.mkIf (config.text != null) (
        lib.mkDefault (pkgs.writeText (builtins.replaceStrings [ "@" ] [ "-" ] (baseNameOf name)) config.text)
      );
    };
  drive = {
    options = {
      name = option (types.nullOr types.str) null;
      file = mkOption { type = types.str; };
      driveExtraOpts = option (types.attrsOf types.str) { };
      deviceExtraOpts = option (types.attrsOf types.str) { };
    };
  };
in
{
  options = {
    environment.systemPackages = option (types.listOf types.package) [ ];
    environment.variables = option (types.attrsOf types.str) { };
    environment.etc = option (types.attrsOf (types.submodule etcFile)) { };
    systemd.services = option (types.attrsOf (types.submodule service)) { };
    users.users = option (types.attrsOf (types.submodule user)) { };

    networking.hostName = option types.str name;
    networking.extraHosts = option types.lines "";
    networking.primaryIPAddress = option types.str "";
    # The guests have no firewall; a configuration that opens ports is right.
    networking.firewall.enable = option types.bool true;
    networking.firewall.allowedTCPPorts = option (types.listOf types.port) [ ];
    networking.firewall.allowedUDPPorts = option (types.listOf types.port) [ ];

    virtualisation.memorySize = option types.ints.positive 1024;
    virtualisation.cores = option types.ints.positive 1;
    virtualisation.diskSize = option types.ints.positive 1024;
    virtualisation.graphics = option types.bool true;
    virtualisation.vlans = option (types.listOf types.int) [ 1 ];
    virtualisation.useNixStoreImage = option types.bool false;
    virtualisation.mountHostNixStore = option types.bool (!config.virtualisation.useNixStoreImage);
    # Stage 1 mounts one of the two, under a layer that can be written to. A
    # configuration may say so, too, but cannot have anything else.
    virtualisation.writableStore = option (types.enum [ true ]) true;
    virtualisation.fileSystems = mkOption {
      type = types.attrsOf types.anything;
      default = { };
      apply =
        mounts:
        let
          others = removeAttrs mounts [
            "/nix/.ro-store"
            "/nix/store"
          ];
        in
        lib.throwIfNot (others == { }) "the guests of nix/offline mount no ${toString (builtins.attrNames others)}" mounts;
    };
    virtualisation.additionalPaths = option (types.listOf types.path) [ ];
    virtualisation.qemu.options = strings;
    virtualisation.qemu.drives = option (types.listOf (types.submodule drive)) [ ];
    virtualisation.qemu.package = option types.package qemu.package;
    virtualisation.qemu.forceAccel = option types.bool qemu.forceAccel;
    # Of this folder only: the console can be seen on the screen, not only in the
    # text of the virtual terminals. It costs a second of the boot.
    virtualisation.screen = option types.bool false;
    # Of this folder only: mini boots sooner, systemd has services.
    virtualisation.guest = mkOption {
      type = types.enum [
        "mini"
        "systemd"
      ];
      default = if config.systemd.services == { } then "mini" else "systemd";
    };

    system.name = option types.str config.networking.hostName;
    system.stateVersion = option (types.nullOr types.str) null;
    system.build = option (types.lazyAttrsOf types.raw) { };
  };

  config = {
    networking.primaryIPAddress = lib.mkIf (config.virtualisation.vlans != [ ]) (lib.mkDefault (address name));
    networking.extraHosts = lib.concatMapStringsSep "\n" (n: "${address n} ${nodes.${n}.networking.hostName}") onVlan;
    virtualisation.additionalPaths = [ config.system.build.toplevel ];
    virtualisation.qemu.drives = lib.mkMerge [
      [
        {
          name = "root";
          file = ''"$NIX_DISK_IMAGE"'';
          driveExtraOpts.cache = "writeback";
          driveExtraOpts.werror = "report";
          deviceExtraOpts.serial = "root";
        }
      ]
      (lib.mkIf config.virtualisation.useNixStoreImage [
        {
          name = "nix-store";
          file = ''"$TMPDIR"/store.img'';
          driveExtraOpts.format = "raw";
        }
      ])
      (lib.mkIf (config.virtualisation.guest == "systemd") [
        {
          name = "base";
          file = "${guests.systemdBase}/root.erofs";
          driveExtraOpts.format = "raw";
          driveExtraOpts.readonly = "on";
          deviceExtraOpts.serial = "base";
        }
      ])
    ];
    system.build = rec {
      toplevel = guests.toplevel {
        inherit config;
        inherit (config.virtualisation) vlans;
        nodeNumber = numberOf name;
      };
      vm = builtins.seq config.virtualisation.fileSystems guests.startScript {
        inherit config toplevel;
        inherit (config.virtualisation) vlans;
        nodeNumber = numberOf name;
      };
    };
  };
}
