# Jobs for Hydra: each VM test is one, which Hydra gives to a machine with the system
# features nixos-test and kvm. What a test leaves that fails is among the products of
# its build, too. Copy this to hydra/jobs.nix of the repository with the tests, and
# make a jobset of spec.json, whose inputs are the arguments here.
{
  nixpkgs,
  vm-prebuild,
  # The repository with the tests.
  src,
  system ? "x86_64-linux",
}:
let
  pkgs = import nixpkgs { inherit system; };
  vmTests = (import vm-prebuild { inherit pkgs; }).lib.mkVmTests {
    inherit pkgs;
    tests.hello = src + "/tests/hello.nix";
    modules = [
      {
        prebuild.report.html = true;
        prebuild.report.keepOnFailure = true;
      }
    ];
  };
in
vmTests.checks
// {
  # For people, who fetch it from Hydra's cache and run the tests at once.
  inherit (vmTests.packages) run-vm-tests-with-cache;
}
