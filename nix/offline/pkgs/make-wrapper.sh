# Setup hook: makeWrapper EXECUTABLE OUT [OPTION...] and wrapProgram FILE [OPTION...].
# Options, as in nixpkgs: --set NAME VALUE, --set-default NAME VALUE,
# --unset NAME, --prefix NAME SEP VALUE, --suffix NAME SEP VALUE,
# --add-flag FLAG, --add-flags "FLAGS", --append-flags "FLAGS", --run "COMMAND",
# --chdir DIR, --argv0 NAME, --inherit-argv0.
makeWrapper() {
    local original=$1 wrapper=$2 before= flags= after= argv0=
    shift 2
    while [ $# -gt 0 ]; do
        case $1 in
        --set) before+="export $2=${3@Q}"$'\n'; shift 3 ;;
        --set-default) before+="export $2=\${$2-${3@Q}}"$'\n'; shift 3 ;;
        --unset) before+="unset $2"$'\n'; shift 2 ;;
        --prefix) before+="export $2=${4@Q}\${$2:+${3@Q}}\${$2-}"$'\n'; shift 4 ;;
        --suffix) before+="export $2=\${$2-}\${$2:+${3@Q}}${4@Q}"$'\n'; shift 4 ;;
        --run) before+="$2"$'\n'; shift 2 ;;
        --chdir) before+="cd ${2@Q}"$'\n'; shift 2 ;;
        --add-flag) flags+=" ${2@Q}"; shift 2 ;;
        --add-flags) flags+=" $2"; shift 2 ;;
        --append-flags) after+=" $2"; shift 2 ;;
        --argv0) argv0="-a ${2@Q}"; shift 2 ;;
        --inherit-argv0) argv0='-a "$0"'; shift ;;
        *) echo "makeWrapper: unknown option $1" >&2; return 1 ;;
        esac
    done
    mkdir -p "$(dirname "$wrapper")"
    printf '#!%s -e\n%sexec %s %s%s "$@"%s\n' @shell@ "$before" "$argv0" "${original@Q}" "$flags" "$after" >"$wrapper"
    chmod +x "$wrapper"
}

wrapProgram() {
    local file=$1 hidden
    hidden=$(dirname "$file")/.$(basename "$file")-wrapped
    shift
    mv "$file" "$hidden"
    makeWrapper "$hidden" "$file" --inherit-argv0 "$@"
}
