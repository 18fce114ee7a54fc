# The machines of testdata/scripts, as a JSON file: of each its start script and
# its VLANs. A script names those that it wants.
let
  pkgs = import ../../../nix/offline { };
  inherit (pkgs) lib;
  busybox = "${pkgs.busybox}/bin";
in
pkgs.testers.runNixOSTest (
  { config, ... }:
  {
    name = "scripts";

    defaults =
      { pkgs, ... }:
      {
        virtualisation.memorySize = lib.mkDefault 512;
        environment.systemPackages = [
          (pkgs.writeShellScriptBin "fetch" ''
            exec ${busybox}/wget -q -O - "$1"
          '')
          (pkgs.writeShellScriptBin "serve" ''
            exec ${busybox}/httpd -f -p "$1" -h "$2"
          '')
        ];
      };

    nodes = {
      # Small guests. A user whose password scripts type, an SSH-less "network":
      # alpha and beta are neighbours, far is behind router.
      machine.users.users.alice.password = "foobar";
      screen.virtualisation.screen = true;
      alpha = { };
      beta = { };
      router.virtualisation.vlans = [
        1
        2
      ];
      far.virtualisation.vlans = [ 2 ];

      # Such that can be saved: their stores are no shares of the host's.
      keeper.virtualisation.useNixStoreImage = true;
      twin.virtualisation.useNixStoreImage = true;
      vault = {
        virtualisation.useNixStoreImage = true;
        environment.etc."systemd/system/warm-restored.target".text = ''
          [Unit]
          Wants=restored.service
        '';
        systemd.services = {
          restored.serviceConfig = {
            Type = "oneshot";
            ExecStart = "/bin/sh -c 'echo restored >>/run/restored'";
          };
          counter = {
            wantedBy = [ "multi-user.target" ];
            script = ''
              while sleep 0.1; do
                echo $((n += 1)) >/run/counter
              done
            '';
          };
        };
      };

      # Debian with systemd, and services of all kinds.
      server = {
        users.users.alice = {
          uid = 1000;
          password = "foobar";
          linger = true;
        };
        environment.etc = {
          "web/index.html".text = ''
            <h1>It works</h1>
          '';
          "systemd/system/echo.socket".text = ''
            [Socket]
            ListenStream=7777
            ListenStream=/run/echo.sock
            Accept=yes
          '';
          "systemd/system/echo@.service".text = ''
            [Service]
            ExecStart=/bin/cat
            StandardInput=socket
          '';
          "systemd/system/tick.timer".text = ''
            [Timer]
            OnActiveSec=1s
            OnUnitActiveSec=1s
            AccuracySec=10ms
          '';
          "systemd/user/greeter.service".text = ''
            [Service]
            Type=oneshot
            RemainAfterExit=yes
            ExecStart=/bin/sh -c 'echo hello from $(id -un) >%h/greeting'
          '';
        };
        systemd.services = {
          web = {
            description = "a web server";
            wantedBy = [ "multi-user.target" ];
            serviceConfig = {
              ExecStart = "${busybox}/httpd -f -v -p 80 -h /etc/web";
              Restart = "on-failure";
              RestartSec = "200ms";
            };
          };
          slow = {
            description = "what takes a while to be ready";
            serviceConfig.Type = "notify";
            serviceConfig.NotifyAccess = "all";
            script = ''
              sleep 2
              systemd-notify --ready
              sleep infinity
            '';
          };
          broken = {
            description = "what cannot start";
            script = ''
              echo "the configuration is missing" >&2
              exit 3
            '';
          };
          tick = {
            serviceConfig.Type = "oneshot";
            script = "echo tick >>/run/ticks";
          };
        };
      };
    };

    testScript = "";
    # Not a test: its machines.
    result = pkgs.writeText "guests.json" (
      builtins.toJSON (
        lib.mapAttrs (name: node: {
          start_script = "${node.system.build.vm}/bin/run-${node.system.name}-vm";
          inherit (node.virtualisation) vlans;
        }) config.nodes
      )
    );
  }
)
