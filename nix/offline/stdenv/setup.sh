# The build environment: PATH and setup hooks of the inputs, and the phases.
set -eu -o pipefail
shopt -s inherit_errexit

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/homeless-shelter
export LC_ALL=C.UTF-8 TZ=UTC SOURCE_DATE_EPOCH=1
umask 022

for input in ${nativeBuildInputs-} ${buildInputs-}; do
    if [ -d "$input/bin" ]; then PATH=$input/bin:$PATH; fi
    if [ -e "$input/nix-support/setup-hook" ]; then . "$input/nix-support/setup-hook"; fi
done

# runHook NAME: runs the function or the shell text of that name, if any.
runHook() {
    if declare -F "$1" >/dev/null; then
        "$1"
    elif [ -n "${!1-}" ]; then
        eval "${!1}"
    fi
}

# substitute IN OUT [--subst-var-by NAME VALUE]...: replaces @NAME@ by VALUE.
substitute() {
    local in=$1 out=$2 text
    shift 2
    text=$(cat "$in"; printf .)
    text=${text%.}
    while [ $# -gt 0 ]; do
        case $1 in
        --subst-var-by) text=${text//"@$2@"/"$3"}; shift 3 ;;
        *) echo "substitute: unknown argument $1" >&2; return 1 ;;
        esac
    done
    printf %s "$text" >"$out"
}

unpackPhase() {
    runHook preUnpack
    if [ -d "$src" ]; then
        cp -r --no-preserve=ownership,mode "$src" source
        # Modes matter for scripts only.
        (cd "$src" && find . -type f -perm /100 -print0) | (cd source && xargs -0 -r chmod u+x)
    else
        mkdir source
        tar -xf "$src" -C source --strip-components=1
    fi
    cd "${sourceRoot:-source}"
    runHook postUnpack
}
patchPhase() {
    local p
    runHook prePatch
    for p in ${patches-}; do patch -p1 <"$p"; done
    runHook postPatch
}
configurePhase() { runHook preConfigure; runHook postConfigure; }
buildPhase() { runHook preBuild; runHook postBuild; }
checkPhase() { runHook preCheck; runHook postCheck; }
installPhase() { runHook preInstall; runHook postInstall; }
fixupPhase() { runHook preFixup; runHook postFixup; }

# runPhase NAME: the derivation's own text if it has one, else the function.
runPhase() {
    echo "running phase $1" >&2
    if [ -n "${!1-}" ]; then eval "${!1}"; else "$1"; fi
}

genericBuild() {
    if [ -n "${buildCommandPath-}" ]; then . "$buildCommandPath"; return; fi
    if [ -n "${buildCommand-}" ]; then eval "$buildCommand"; return; fi
    [ -n "${dontUnpack-}" ] || runPhase unpackPhase
    runPhase patchPhase
    [ -n "${dontConfigure-}" ] || runPhase configurePhase
    [ -n "${dontBuild-}" ] || runPhase buildPhase
    [ -z "${doCheck-}" ] || runPhase checkPhase
    runPhase installPhase
    [ -n "${dontFixup-}" ] || runPhase fixupPhase
}
