# The /etc/systemd of a node whose guest boots systemd.
{
  lib,
  pkgs,
  guests,
  config,
}:
let
  # What a test never waits for, and what an emulated CPU should not spend its
  # boot on. Everything else is as Debian ships it.
  masked = [
    "apt-daily.timer"
    "apt-daily-upgrade.timer"
    "dpkg-db-backup.timer"
    "e2scrub_all.timer"
    "e2scrub_reap.service"
    "fstrim.timer"
    "kmod-static-nodes.service"
    "ldconfig.service"
    "modprobe@.service"
    "serial-getty@.service"
    "sys-kernel-config.mount"
    "sys-kernel-debug.mount"
    "sys-kernel-tracing.mount"
    "dev-hugepages.mount"
    "systemd-ask-password-console.path"
    "systemd-ask-password-wall.path"
    "systemd-binfmt.service"
    "systemd-boot-system-token.service"
    "systemd-firstboot.service"
    "systemd-hwdb-update.service"
    "systemd-journal-catalog-update.service"
    "systemd-journal-flush.service"
    "systemd-modules-load.service"
    "systemd-pstore.service"
    "systemd-random-seed.service"
    "systemd-remount-fs.service"
    "systemd-sysusers.service"
    "systemd-tmpfiles-clean.timer"
    "systemd-update-done.service"
    "systemd-update-utmp.service"
    "systemd-update-utmp-runlevel.service"
    "proc-sys-fs-binfmt_misc.automount"
  ]
  # It takes a second to start, and only sessions of users need it.
  ++ lib.optional (config.users.users == { }) "systemd-logind.service";

  # They look for partitions, encrypted disks, /etc/fstab and init scripts;
  # the guests have none, stage 1 mounts what there is.
  maskedGenerators = [
    "systemd-bless-boot-generator"
    "systemd-cryptsetup-generator"
    "systemd-debug-generator"
    "systemd-fstab-generator"
    "systemd-getty-generator"
    "systemd-gpt-auto-generator"
    "systemd-hibernate-resume-generator"
    "systemd-integritysetup-generator"
    "systemd-rc-local-generator"
    "systemd-run-generator"
    "systemd-system-update-generator"
    "systemd-sysv-generator"
    "systemd-veritysetup-generator"
  ];

  # At boot udev hears of the devices that units wait for, not of all the
  # hundreds; what is plugged in later it hears of as ever.
  coldplug = pkgs.writeText "udev-trigger.conf" ''
    [Service]
    ExecStart=
    ExecStart=udevadm trigger --action=add --subsystem-match=block --subsystem-match=net --subsystem-match=virtio-ports
    ExecStart=udevadm trigger --action=add --sysname-match=hvc0 --sysname-match=ttyS0
  '';

  value = v: if builtins.isBool v then lib.boolToString v else toString v;
  section =
    name: attrs:
    "[${name}]\n"
    + lib.concatStrings (
      lib.mapAttrsToList (n: v: lib.concatMapStrings (x: "${n}=${value x}\n") (lib.toList v)) attrs
    )
    + "\n";
  list = n: xs: lib.optionalAttrs (xs != [ ]) { ${n} = builtins.concatStringsSep " " xs; };
  program =
    name: text: pkgs.writeShellScript name "set -e\n${text}";

  unitFile =
    name: s:
    pkgs.writeText "${name}.service" (
      section "Unit" (
        lib.optionalAttrs (s.description != "") { Description = s.description; }
        // list "After" s.after
        // list "Before" s.before
        // list "Wants" s.wants
        // list "Requires" s.requires
        // list "BindsTo" s.bindsTo
        // list "PartOf" s.partOf
        // list "Conflicts" s.conflicts
        // s.unitConfig
      )
      + section "Service" (
        {
          Environment =
            lib.mapAttrsToList (n: v: builtins.toJSON "${n}=${v}") s.environment
            ++ [
              (builtins.toJSON "PATH=${lib.makeBinPath (s.path ++ [ pkgs.coreutils pkgs.findutils pkgs.gnugrep pkgs.gnused ])}:/usr/bin:/usr/sbin")
            ];
        }
        // lib.optionalAttrs (s.preStart != "") { ExecStartPre = program "${name}-pre-start" s.preStart; }
        // lib.optionalAttrs (s.script != "") { ExecStart = program "${name}-start" s.script; }
        // lib.optionalAttrs (s.postStop != "") { ExecStopPost = program "${name}-post-stop" s.postStop; }
        // s.serviceConfig
      )
    );

  backdoor = pkgs.writeText "backdoor.service" (
    section "Unit" {
      Description = "root shell of the test driver";
      Requires = "dev-hvc0.device dev-ttyS0.device";
      After = "dev-hvc0.device dev-ttyS0.device";
    }
    + section "Service" {
      ExecStart = guests.backdoor;
      KillSignal = "SIGHUP";
    }
  );

  services = lib.filterAttrs (_: s: s.enable) config.systemd.services;
in
pkgs.runCommand "etc-systemd" { } ''
  mkdir -p $out/system $out/system-generators $out/system.conf.d $out/journald.conf.d
  for generator in ${toString maskedGenerators}; do ln -s /dev/null $out/system-generators/$generator; done
  cd $out/system
  ln -s /lib/systemd/system/multi-user.target default.target
  ${lib.concatMapStrings (u: "ln -s /dev/null ${lib.escapeShellArg u}\n") masked}
  install_unit() { # NAME FILE WANTED_BY REQUIRED_BY
      local target
      cp "$2" "$1"
      for target in $3; do mkdir -p "$target.wants"; ln -s "../$1" "$target.wants/"; done
      for target in $4; do mkdir -p "$target.requires"; ln -s "../$1" "$target.requires/"; done
  }
  mkdir systemd-udev-trigger.service.d
  cp ${coldplug} systemd-udev-trigger.service.d/test.conf
  install_unit backdoor.service ${backdoor} multi-user.target ""
  ${lib.concatStrings (
    lib.mapAttrsToList (n: s: ''
      install_unit ${n}.service ${unitFile n s} "${toString s.wantedBy}" "${toString s.requiredBy}"
    '') services
  )}
  printf '[Manager]\nShowStatus=no\nDefaultTimeoutStartSec=300\nDefaultDeviceTimeoutSec=300\n' >$out/system.conf.d/test.conf
  printf '[Journal]\nStorage=volatile\nForwardToConsole=yes\nTTYPath=/dev/ttyS0\nMaxLevelConsole=debug\n' >$out/journald.conf.d/test.conf
''
