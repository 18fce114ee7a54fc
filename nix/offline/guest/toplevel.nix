# A node's configuration as a tree in the store: its files for /etc (systemd
# units among them), its programs (sw), and its init.
{
  lib,
  pkgs,
  guests,
}:
{
  # An evaluated node; see testing/node.nix.
  config,
  # The numbers of the VLANs that it is on, in the order of its interfaces.
  vlans,
  # Its number among the nodes, from 1.
  nodeNumber,
}:
let
  isSystemd = config.virtualisation.guest == "systemd";

  profile = pkgs.writeText "profile" ''
    export PATH=/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
    ${lib.concatStrings (
      lib.mapAttrsToList (n: v: ''
        export ${n}=${lib.escapeShellArg v}
      '') config.environment.variables
    )}
  '';

  network = ''
    ip addr add 10.0.2.15/24 dev eth0
    ip link set eth0 up
  ''
  + lib.concatStrings (
    lib.imap1 (i: vlan: ''
      ip addr add 192.168.${toString vlan}.${toString nodeNumber}/24 dev eth${toString i}
      ip link set eth${toString i} up
    '') vlans
  );

  # Users without a number get those from 1000 on, in the order of their names.
  users = lib.concatStrings (
    lib.imap0 (i: name: let user = config.users.users.${name}; in ''
      user ${lib.escapeShellArgs [
        name
        (toString (if user.uid != null then user.uid else 1000 + i))
        (if user.home != null then user.home else "/home/${name}")
        (if user.password != null then user.password else "")
        (if user.linger then "1" else "")
      ]}
    '') (builtins.attrNames config.users.users)
  );

  kernelParams = [
    # As nixpkgs' tests have them.
    "console=ttyS0"
    "console=tty0"
    "panic=1"
    "loglevel=7"
    "net.ifnames=0"
    "offline.root=${config.virtualisation.guest}"
    # Reading acpi_pm, nixpkgs' choice, leaves the emulated CPU every time; a
    # systemd guest boots in two thirds of the time without it.
    "clocksource=tsc"
    "tsc=reliable"
    # Each of these saves an emulated CPU up to a second of the boot: no
    # defences against other guests, no fifth level of page tables, no watchdog,
    # no self-tests, no audit records on the console.
    "mitigations=off"
    "no5lvl"
    "nowatchdog"
    "cryptomgr.notests"
    "audit=0"
    # The same goes for interpreting ACPI code to route interrupts that virtio (MSI)
    # does not use; but without it the screen's memory has no address.
    (if config.virtualisation.screen then "offline.screen" else "pci=noacpi")
  ];

  units = import ./units.nix {
    inherit
      lib
      pkgs
      guests
      config
      ;
  };
in
pkgs.runCommand "vm-system-${config.system.name}"
  {
    passthru = { inherit isSystemd; };
    inherit (config.networking) hostName;
    hosts = ''
      127.0.0.1 localhost
      ::1 localhost
    ''
    + config.networking.extraHosts;
    inherit network users;
    inherit (guests) kernelModules;
    init = if isSystemd then "/lib/systemd/systemd" else "/bin/init";
  }
  ''
    mkdir -p $out/etc
    ln -s ${
      pkgs.symlinkJoin {
        name = "system-path";
        paths = config.environment.systemPackages;
      }
    } $out/sw
    ${lib.concatStrings (
      lib.mapAttrsToList (path: file: ''
        mkdir -p "$(dirname $out/etc/${lib.escapeShellArg path})"
        cp ${file.source} $out/etc/${lib.escapeShellArg path}
        chmod ${file.mode} $out/etc/${lib.escapeShellArg path}
      '') config.environment.etc
    )}
    cp ${profile} $out/etc/profile
    echo "$hostName" >$out/etc/hostname
    printf %s "$hosts" >$out/etc/hosts
    ${
      if isSystemd then
        "cp -r --no-preserve=mode ${units}/. $out/etc/systemd"
      else
        "install -m 0755 ${guests.backdoor} $out/etc/backdoor"
    }
    # An absolute command: PATH is that of stage 2.
    substitute ${./stage2.sh} $out/init --subst-var-by bash ${pkgs.bash} --subst-var-by busybox ${pkgs.busybox} \
        --subst-var-by toplevel $out --subst-var-by kernelModules "$kernelModules" \
        --subst-var-by network "$network" --subst-var-by users "$users" --subst-var-by init "$init"
    chmod +x $out/init
    echo -n ${lib.escapeShellArg (builtins.concatStringsSep " " kernelParams)} >$out/kernel-params
  ''
