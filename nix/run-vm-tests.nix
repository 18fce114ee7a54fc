# run-vm-tests together with the tests that it runs.
{
  pkgs,
  # The package of run-vm-tests.
  vm-prebuild,
  # What vm-prebuild.nix returned.
  prebuilt,
}:
pkgs.runCommand "run-vm-tests-with-cache"
  {
    nativeBuildInputs = [ pkgs.makeWrapper ];
    preferLocalBuild = true;
    passthru = { inherit prebuilt; };
    meta.mainProgram = "run-vm-tests";
  }
  ''
    mkdir -p $out/bin
    cp ${prebuilt.manifest} $out/manifest.json
    ln -s ${prebuilt.closureInfo} $out/closure-info
    ln -s ${prebuilt.storeDb} $out/store-db
    makeWrapper ${vm-prebuild}/bin/run-vm-tests $out/bin/run-vm-tests \
      --set-default VM_PREBUILD_MANIFEST $out/manifest.json
  ''
