{ writeShellApplication, coreutils }:
writeShellApplication {
  name = "banner";
  runtimeInputs = [ coreutils ];
  text = builtins.readFile ./banner.sh;
  meta.description = "Print text in the colours of a theme";
}
