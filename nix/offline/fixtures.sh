#!/bin/sh
# Has real Nix make what the tests of nar/, storedb/ and buildhook/ hold ours
# against: nix/offline/fixtures.sh BIN [ROOT] runs BIN/nix and BIN/nix-store and
# writes the folders testdata/nix-VERSION below ROOT, which is this repository unless
# given. The same Nix makes the same bytes again, anywhere.
set -eu

bin=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "${2:-$here/../..}" && pwd)
version=$("$bin/nix" --version | sed -n 's/^nix (Nix) \([0-9]*\.[0-9]*\).*/\1/p')

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
umask 022
export HOME="$work/home" LC_ALL=C TZ=UTC
unset NIX_PATH NIX_REMOTE NIX_STORE_DIR NIX_STATE_DIR NIX_USER_CONF_FILES
export NIX_CONF_DIR="$work/etc" NIX_CONFIG="experimental-features = nix-command
build-users-group =
substituters =
store = $work/root"
mkdir "$work/home" "$work/etc"
nix() { "$bin/nix" "$@" 2>>"$work/log" || { cat "$work/log" >&2; exit 1; }; }
store() { "$bin/nix-store" "$@" 2>>"$work/log" || { cat "$work/log" >&2; exit 1; }; }

# A store as Nix makes it, before anything is in it.
store --init
out=$root/storedb/testdata/nix-$version
rm -rf "$out"
mkdir -p "$out"
# Without SQLite's temporary files, and what depends on who calls Nix.
(cd "$work/root" && find . -mindepth 1 ! -name 'db.sqlite-*' ! -path '*/per-user/*' -printf '%P %y %m\n' | sort) >"$out/state"
cp "$work/root/nix/var/nix/db/schema" "$out/schema-version"
python3 - "$work/root/nix/var/nix/db/db.sqlite" >"$out/schema.sql" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for (sql,) in db.execute("select sql from sqlite_master where sql is not null order by rowid"):
    print(sql + ";")
for pragma in "user_version", "application_id", "journal_mode", "page_size", "auto_vacuum", "encoding":
    print("-- pragma %s = %s" % (pragma, db.execute("pragma " + pragma).fetchone()[0]))
PY

# A tree of everything that an archive can hold, with names and contents that other
# tools have stumbled over.
tree=$work/tree
mkdir -p "$tree/dir/below" "$tree/empty-dir"
: >"$tree/empty"
printf 1234567 >"$tree/dir/seven"
printf 12345678 >"$tree/dir/eight"
printf 'in a directory\n' >"$tree/dir/below/file"
printf '#!/bin/sh\n' >"$tree/run"
chmod 755 "$tree/run"
printf x >"$tree/)"
printf x >"$tree/..data"
printf x >"$tree/a-b"
printf x >"$tree/a.b"
printf x >"$tree/name with \"<&>\" and é"
ln -s ../nowhere "$tree/link"
ln -s /nix/store "$tree/absolute"

# Store paths with everything that one can have: a derivation of two outputs made of
# a tree and of a text that refers to it; one of the outputs refers to the text and to
# itself, and is registered with its deriver, the way a build would.
cat >"$work/result.nix" <<NIX
let
  tree = builtins.path { path = $tree; name = "tree"; };
  text = builtins.toFile "text" "this refers to \${tree}\n";
in
derivation {
  name = "result";
  system = "x86_64-linux";
  builder = "/bin/sh";
  args = [ "-c" "echo \$text >\$out" ];
  outputs = [ "out" "dev" ];
  inherit text;
}
NIX
drv=$(nix eval --raw --file "$work/result.nix" drvPath)
tree=$(store --query --references "$(store --query --references "$drv")")
text=$(store --query --references "$drv")
result=$(nix eval --raw --file "$work/result.nix" outPath)
printf 'made of %s\nand myself, %s\n' "$text" "$result" >"$work/root$result"
chmod 444 "$work/root$result"
touch -d @1 "$work/root$result"
store --dump "$work/root$result" >"$work/result.nar"
printf '%s\n' "$result" "$(sha256sum <"$work/result.nar" | cut -d ' ' -f 1)" "$(wc -c <"$work/result.nar")" \
    "$drv" 2 "$text" "$result" | store --load-db
for path in $(store --query --requisites "$result" "$drv"); do
    store --dump-db "$path"
done >"$out/registration"
cp "$work/root$drv" "$out/result.drv"

out=$root/nar/testdata/nix-$version
rm -rf "$out"
mkdir -p "$out"
store --dump "$work/root$tree" >"$out/tree.nar"

# Binary caches of these paths, signed with a key that serves no other purpose.
out=$root/nar/narinfo/testdata/nix-$version
rm -rf "$out"
mkdir -p "$out"
printf %s 'test-1:Ka/T5MFDFce9zN8JWEmUXD5ia1quqvxe9Y2QE1+V4NLu4xLwghXKHiufoh9cuiNT4Qk/cSxTqDVPGE7zNFZlFg==' >"$work/key"
for compression in none xz zstd; do
    cache=$work/$compression
    nix copy --to "file://$cache?compression=$compression&secret-key=$work/key&write-nar-listing=1" "$result"
    mkdir "$out/$compression"
    cp "$cache"/*.narinfo "$cache/nix-cache-info" "$out/$compression"
done
hash=${tree#/nix/store/}
cp "$work/none/${hash%%-*}.ls" "$root/nar/testdata/nix-$version/tree.ls"

# What Nix says to a program named by its setting build-hook, which is asked to build
# two derivations and takes one.
out=$root/buildhook/protocol/testdata/nix-$version
rm -rf "$out"
mkdir -p "$out"
cat >"$work/hook" <<'PY'
#!/usr/bin/python3
import os, sys
record = open(os.environ["RECORD"], "ab", buffering=0)
def read(n):
    data = b""
    while len(data) < n:
        more = os.read(0, n - len(data))
        if not more:
            sys.exit(0)
        data += more
    record.write(data)
    return data
def number():
    return int.from_bytes(read(8), "little")
def text():
    n = number()
    data = read(n)
    read(-n % 8)
    return data.decode()
def texts():
    return [text() for _ in range(number())]
while number():
    text(), text()
while text() == "try":
    number(), text()
    derivation = text()
    texts()
    if "accept" not in derivation:
        os.write(2, b"# decline\n")
        continue
    os.write(2, b"# accept\nrecorder\n")
    texts(), texts()
    os._exit(7)
PY
chmod +x "$work/hook"
cat >"$work/hook.nix" <<'NIX'
let
  plain = derivation {
    name = "plain";
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ "-c" "echo hello >$out" ];
  };
in
derivation {
  name = "vm-accept";
  system = "x86_64-linux";
  builder = "/bin/sh";
  args = [ "-c" "echo $plain >$out" ];
  requiredSystemFeatures = [ "nixos-test" "kvm" ];
  inherit plain;
}
NIX
drv=$(nix eval --raw --file "$work/hook.nix" drvPath)
# Whatever depends on the machine has one value here. The store and the hook itself
# are named by paths that differ each time, of the same length.
RECORD=$work/recorded "$bin/nix-store" --realise "$drv" \
    --option build-hook "$work/hook" --option builders "" --option max-jobs 1 --option cores 2 \
    --option system-features benchmark --option extra-platforms "" --option system x86_64-linux \
    --option sandbox-paths "/bin /lib /lib64 /usr" --option timeout 99 --option max-silent-time 77 \
    --option ssl-cert-file /none --option netrc-file /none --option sandbox-dev-shm-size 50% \
    --option download-attempts 5 >>"$work/log" 2>&1 && exit 1
[ -s "$work/recorded" ] || { cat "$work/log" >&2; exit 1; }
sed "s|$work|$(printf %s "$work" | sed 's/./w/g; s/^w/\//')|g" "$work/recorded" >"$out/hook"
