# What every derivation of nix/offline runs.
# With structured attributes Nix leaves the variables in a file.
if [ -e "${NIX_ATTRS_SH_FILE:-.attrs.sh}" ]; then
    . "${NIX_ATTRS_SH_FILE:-.attrs.sh}"
    out=${outputs[out]}
fi
. "$stdenvSetup"
genericBuild
