# What the tests need beyond a Rust toolchain, gcc and make, from Debian's packages. To be sourced.

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo -- "$@"; else
    echo "tests/run: cannot install packages: neither root nor sudo. Install by hand: ${*: -1}" >&2
    return 1
  fi
}

# Installs the packages among its arguments that are missing; each is `package`, `package:command that it brings`, or `package:/file that it
# brings`, which may be a pattern.
packages_need() {
  local need package command missing=()
  for need in "$@"; do
    package=${need%%:*} command=${need#*:}
    { command -v "$command" || compgen -G "$command"; } >/dev/null || missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  command -v apt-get >/dev/null || { echo "tests/run: please install: ${missing[*]}" >&2; return 1; }
  echo "installing: ${missing[*]}"
  as_root apt-get update -qq >/dev/null || return 1
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
