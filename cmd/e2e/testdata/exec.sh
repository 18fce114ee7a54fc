# What a test does that needs Nix and a store: look, check, add, build, delete.
ls "$NIX_REMOTE/nix/store" | cut -d- -f2- | sort
nix-store --query --requisites "$directory"
nix-store --verify --check-contents 2>&1
echo text >text
added=$(nix-store --add text)
nix-store --query --hash "$added"
built=$(nix-build --quiet --no-out-link --option sandbox-paths /sh=/usr/bin/busybox -E 'derivation {
  name = "built"; system = builtins.currentSystem; builder = "/sh";
  args = [ "-c" "read -r x < $input; echo built of $x > $out" ];
  input = builtins.storePath (builtins.getEnv "file");
}')
cat "$NIX_REMOTE$built"
nix-store --delete "$built" "$added" >/dev/null 2>&1
test ! -e "$NIX_REMOTE$built"
rm text
