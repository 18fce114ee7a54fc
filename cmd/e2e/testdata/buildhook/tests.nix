# Derivations for the tests of the build hook. A test is whatever needs the features
# of one; the builders are bash scripts with the programs of the machine that runs
# them.
{
  # Makes derivations different that would be the same.
  salt ? "",
  # How many tests and jobs there are of those that are many.
  count ? 1,
  # Seconds that each of these tests takes.
  seconds ? 0,
  # Store paths to depend on.
  inputs ? [ ],
  # A directory or file to look at.
  path ? "/none",
}:
let
  sh =
    name: script: extra:
    derivation (
      {
        inherit name salt;
        system = "x86_64-linux";
        builder = "/bin/bash";
        args = [
          "-euc"
          script
        ];
        PATH = "/usr/bin:/bin";
      }
      // extra
    );
  test =
    name: script: extra:
    sh name script (
      {
        requiredSystemFeatures = [
          "nixos-test"
          "kvm"
        ];
      }
      // extra
    );
  numbers = builtins.genList toString count;

  # The driver of a test with one machine, as far as a hook looks at it.
  driver =
    name: memory: cores:
    sh "nixos-test-driver-${name}" ''
      mkdir -p $out/bin
      echo "exec true --start-scripts $machine/bin/run-m-vm" >$out/bin/nixos-test-driver
    '' { machine = machine memory cores; };
  machine =
    memory: cores:
    sh "vm-m" ''
      mkdir -p $out/bin
      echo 'exec qemu -name m -m ${toString memory} -smp ${toString cores}' >$out/bin/run-m-vm
    '' { };
  # One that takes a while, and needs what it says.
  sized =
    name: memory: cores: seconds:
    test name ''
      echo "as ${driver name memory cores}/bin/nixos-test-driver would"
      sleep ${toString seconds}
      echo done >$out
    '' { };
in
rec {
  ordinary = sh "ordinary" "echo ordinary $salt >$out" { };
  fixed = sh "fixed" "printf fixed >$out" {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "fixed";
  };
  # A fixed output is no test's, whatever it needs.
  fixedTest = sh "fixed-test" "printf fixed >$out" {
    requiredSystemFeatures = [ "nixos-test" ];
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" "fixed";
  };

  passing =
    test "passing"
      ''
        echo "a line of the log"
        echo '@nix {"action":"setPhase","phase":"checkPhase"}' >&2
        mkdir $out $log
        echo "$ordinary" >$out/input
        echo "$log" >$out/log
        echo '#!/bin/sh' >$out/run
        chmod +x $out/run
        ln -s $ordinary $log/link
        echo "nothing" >$log/text
      ''
      {
        inherit ordinary fixed;
        outputs = [
          "out"
          "log"
        ];
      };
  # Is built by Nix, of what the hook has built.
  dependent = sh "dependent" "cat $passing/input $passing/log >$out" { inherit passing; };

  failing = test "failing" ''
    echo "the assertion is false"
    exit 3
  '' { };
  endless = test "endless" ''
    while true; do echo tick; sleep 0.2; done
  '' { };
  silent = test "silent" ''
    echo "nothing more"
    sleep 1000
  '' { };
  # Leaves a process with a session of its own, and does not end.
  stubborn = test "stubborn" ''
    echo started
    (trap "" TERM INT HUP; setsid sleep ${marker} </dev/null >/dev/null 2>&1) &
    trap "" TERM INT HUP
    while true; do sleep ${marker}; done
  '' { };
  # Says more than Nix reads once it has stopped.
  talkative = test "talkative" "exec yes ${marker}" { };
  talkativeElsewhere = test "talkative-elsewhere" "exec yes ${marker}" {
    requiredSystemFeatures = [ "elsewhere" ];
  };
  # By which its processes are known.
  marker = "3611.${salt}";

  structured = derivation {
    name = "structured";
    system = "x86_64-linux";
    builder = "/bin/bash";
    args = [
      "-euc"
      ". .attrs.sh; echo \"\${list[1]}\" >\"\${outputs[out]}\""
    ];
    __structuredAttrs = true;
    list = [
      "one"
      "two"
    ];
    outputs = [ "out" ];
    requiredSystemFeatures = [ "nixos-test" ];
    inherit salt;
  };
  forbidden = test "forbidden" "echo $ordinary >$out" {
    inherit ordinary;
    allowedReferences = [ ];
  };
  otherFeature = test "other-feature" "echo >$out" {
    requiredSystemFeatures = [
      "nixos-test"
      "elsewhere"
    ];
  };
  named = sh "named-vm-check" "echo named >$out" { };
  writes =
    test "writes" ''
      cat ${path}/file
      if echo no >${path}/new; then echo "it can be written to"; exit 1; fi
      echo yes >$out
    '' { };
  identity = test "identity" "grep Uid: /proc/self/status; cat /proc/self/uid_map; echo >$out" { };
  manyUsers = test "many-users" "cat /proc/self/uid_map; echo >$out" {
    requiredSystemFeatures = [
      "nixos-test"
      "uid-range"
    ];
  };
  tunnel = test "tunnel" "test -c /dev/net/tun; echo >$out" {
    requiredSystemFeatures = [
      "nixos-test"
      "devnet"
    ];
  };
  network = test "network" "[ \"$(ls /sys/class/net 2>/dev/null || tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ')\" = lo ]; echo >$out" { };

  big = sized "big" 99999999 1 0;
  wide = sized "wide" 512 9999 0;
  many = map (n: sized "many-${n}" 1000 1 seconds) numbers;
  jobs = map (n: sh "job-${n}" "sleep 0.2; echo ${n} $salt >$out" { }) numbers;
  drivers = map (n: driver "many-${n}" 1000 1) numbers;
  # Tells when its builder started, in nanoseconds.
  start = test "start" "echo $EPOCHREALTIME >$out" {
    inputs = map builtins.storePath inputs;
    passAsFile = [ "inputs" ]; # it may be longer than a variable can be
  };
}
