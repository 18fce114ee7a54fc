# banner: print text in the colours of a theme.
# The shebang, the options errexit, nounset and pipefail, and PATH come from
# writeShellApplication (package.nix).

usage() {
  cat <<'EOF'
Usage: banner [OPTION...] COMMAND [ARGUMENT...]

Print text in the colours of a theme.

Commands:
  print TEXT...          print the text
  themes                 list the themes; the one in use is marked
  config list            list all settings and where each comes from
  config get KEY         print one setting
  config set KEY VALUE   write a setting to the configuration file
  config unset KEY       remove a setting from the configuration file
  help                   print this help

Options, which go before everything else:
  --theme NAME           plain, ocean, forest or ember (default: plain)
  --prefix TEXT          printed before the text (default: the theme's own)
  --color WHEN           always, never or auto: on a terminal (default: auto)

A setting comes from, in this order: the option, the environment
(BANNER_THEME, BANNER_PREFIX, BANNER_COLOR), the configuration file
(BANNER_CONFIG, else ~/.config/banner/config), the default.
EOF
}

keys=(color prefix theme)
themes=(plain ocean forest ember)
file=${BANNER_CONFIG:-${XDG_CONFIG_HOME:-${HOME-}/.config}/banner/config}
declare -A flags=()

fail() {
  echo "banner: $*" >&2
  exit 2
}

contains() { # WORD WORDS...
  local word=$1 w
  shift
  for w in "$@"; do
    if [ "$w" = "$word" ]; then return 0; fi
  done
  return 1
}

check() { # KEY [VALUE]
  contains "$1" "${keys[@]}" || fail "unknown setting: $1 (one of: ${keys[*]})"
  if [ $# -lt 2 ]; then return; fi
  case $1 in
    theme) contains "$2" "${themes[@]}" || fail "unknown theme: $2 (one of: ${themes[*]})" ;;
    color) contains "$2" always never auto || fail "color is always, never or auto, not: $2" ;;
  esac
}

in_file() { # KEY: prints the value in the configuration file; fails without one
  local line found=1
  [ -e "$file" ] || return 1
  while IFS= read -r line; do
    if [ "${line%%=*}" = "$1" ]; then
      printf '%s\n' "${line#*=}"
      found=0
    fi
  done <"$file"
  return "$found"
}

rewrite_file() { # KEY [VALUE]: without a value the setting is removed
  local line new
  mkdir -p "$(dirname "$file")"
  new=$(mktemp "$file.XXXXXX")
  if [ -e "$file" ]; then
    while IFS= read -r line; do
      if [ "${line%%=*}" != "$1" ]; then printf '%s\n' "$line"; fi
    done <"$file" >"$new"
  fi
  if [ $# -gt 1 ]; then printf '%s=%s\n' "$1" "$2" >>"$new"; fi
  mv "$new" "$file"
}

default() { # KEY
  case $1 in
    theme) echo plain ;;
    color) echo auto ;;
    prefix)
      case $(value theme) in
        ocean) echo '~ ' ;;
        forest) echo '* ' ;;
        ember) echo '# ' ;;
        *) echo ;;
      esac
      ;;
  esac
}

lookup() { # KEY: prints the source of the setting, a tab, its value
  local variable=BANNER_${1^^} stored
  if [ -n "${flags[$1]+set}" ]; then
    printf 'flag\t%s\n' "${flags[$1]}"
  elif [ -n "${!variable+set}" ]; then
    printf 'environment\t%s\n' "${!variable}"
  elif stored=$(in_file "$1"); then
    printf 'file\t%s\n' "$stored"
  else
    printf 'default\t%s\n' "$(default "$1")"
  fi
}

value() { # KEY
  local found
  found=$(lookup "$1")
  check "$1" "${found#*$'\t'}"
  printf '%s\n' "${found#*$'\t'}"
}

print() {
  local theme prefix color code=
  theme=$(value theme)
  prefix=$(value prefix)
  color=$(value color)
  case $theme in
    ocean) code=34 ;;
    forest) code=32 ;;
    ember) code=31 ;;
  esac
  if [ "$color" = never ] || { [ "$color" = auto ] && ! [ -t 1 ]; }; then code=; fi
  if [ -n "$code" ]; then
    printf '\e[%sm%s%s\e[0m\n' "$code" "$prefix" "$*"
  else
    printf '%s%s\n' "$prefix" "$*"
  fi
}

config() {
  local key found
  case ${1-}:$# in
    list:1)
      for key in "${keys[@]}"; do
        found=$(lookup "$key")
        printf '%s=%s (%s)\n' "$key" "${found#*$'\t'}" "${found%%$'\t'*}"
      done
      ;;
    get:2)
      check "$2"
      value "$2"
      ;;
    set:3)
      check "$2" "$3"
      rewrite_file "$2" "$3"
      ;;
    unset:2)
      check "$2"
      in_file "$2" >/dev/null || fail "not set in $file: $2"
      rewrite_file "$2"
      ;;
    *) fail "usage: banner config list | get KEY | set KEY VALUE | unset KEY" ;;
  esac
}

while [ $# -gt 0 ]; do
  case $1 in
    --theme | --prefix | --color)
      if [ $# -lt 2 ]; then fail "$1 needs a value"; fi
      check "${1#--}" "$2"
      flags[${1#--}]=$2
      shift 2
      ;;
    --help | -h)
      usage
      exit 0
      ;;
    -*) fail "unknown option: $1 (see banner --help)" ;;
    *) break ;;
  esac
done

command=${1-help}
shift || true
case $command in
  print) print "$@" ;;
  themes)
    current=$(value theme)
    for theme in "${themes[@]}"; do
      if [ "$theme" = "$current" ]; then echo "* $theme"; else echo "  $theme"; fi
    done
    ;;
  config) config "$@" ;;
  help) usage ;;
  *) fail "unknown command: $command (see banner --help)" ;;
esac
