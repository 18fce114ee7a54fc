# What every derivation of nix/offline runs.
set -eu -o pipefail
shopt -s inherit_errexit

# With structured attributes Nix leaves the variables in a file; Nix 2.8 names
# it in NIX_ATTRS_SH_FILE as it is called outside the sandbox.
if [ -e .attrs.sh ]; then
    . ./.attrs.sh
    out=${outputs[out]}
fi
. "$stdenv/setup"
genericBuild
