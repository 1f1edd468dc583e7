# Sourced by the other scripts: where the tools lie, and how the scripts speak.
TOOLCHAIN="$PWD/.cache/toolchain"
export PATH="$TOOLCHAIN/bin:$PWD/.cache/haproxy/bin:$PATH:/usr/sbin:/sbin"
say() { printf '%s: %s\n' "$(basename "$0")" "$*"; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}
