{
  nodes = {
    # Serves what banner prints.
    server =
      { pkgs, ... }:
      {
        networking.firewall.allowedTCPPorts = [ 80 ];
        systemd.services.motd = {
          description = "write the message of the day";
          before = [ "motd-http.service" ];
          requiredBy = [ "motd-http.service" ];
          path = [ "/run/current-system/sw" ];
          script = ''
            mkdir -p /run/motd
            banner --theme forest print "welcome" > /run/motd/index.html
          '';
          serviceConfig = {
            Type = "oneshot";
            RemainAfterExit = true;
          };
        };
        systemd.services.motd-http = {
          description = "serve the message of the day";
          wantedBy = [ "multi-user.target" ];
          after = [ "network.target" ];
          serviceConfig.ExecStart = "${pkgs.busybox}/bin/httpd -f -p 80 -h /run/motd";
        };
      };

    client =
      { pkgs, ... }:
      {
        environment.systemPackages = [
          (pkgs.writeShellScriptBin "fetch" ''
            exec ${pkgs.busybox}/bin/wget -q -O - "$1"
          '')
        ];
      };
  };

  testScript = ''
    start_all()

    with subtest("the server's units come up"):
        server.wait_for_unit("motd-http.service")
        server.wait_for_open_port(80)
        assert server.get_unit_property("motd.service", "Result") == "success"
        server.require_unit_state("motd.service", "active")

    with subtest("the machines reach each other by name"):
        client.wait_for_unit("network.target")
        client.wait_until_succeeds("ping -c 1 server")
        server.succeed("ping -c 1 client")

    with subtest("the client gets the message"):
        message = client.succeed("fetch http://server/")
        assert message == "* welcome\n", f"got {message!r}"

    with subtest("a stopped service stops answering"):
        server.stop_job("motd-http.service")
        server.wait_for_closed_port(80)
        client.fail("fetch http://server/")
        server.start_job("motd-http.service")
        client.wait_until_succeeds("fetch http://server/")
  '';
}
