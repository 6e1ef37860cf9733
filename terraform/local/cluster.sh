#!/bin/sh
# Starts and ends the cluster of this module. Usage: cluster.sh up | down
#
# WEFT: the binary. DIR: folder of the cluster. CONTROLLERS, NODES, SLOTS: sizes of a new one.
set -eu

# Written by `up`, read by Terraform. A folder without it was not made by this module, and is never removed.
status="$DIR/terraform.json"

up() {
  command -v "$WEFT" >/dev/null || fail "\`$WEFT\` is not there: set \`weft\` to the path of the binary"
  # Terraform does not run `down` for a resource that is tainted.
  down
  [ ! -e "$DIR" ] || fail "\`$DIR\` exists and was not made by this module: remove it, or set another \`dir\`"
  trap 'end; exit 1' EXIT HUP INT TERM
  "$WEFT" cluster up --dir "$DIR" --controllers "$CONTROLLERS" --nodes "$NODES" --slots "$SLOTS"
  "$WEFT" cluster status --dir "$DIR" --json >"$status.new"
  mv "$status.new" "$status"
  trap - EXIT HUP INT TERM
}

down() {
  # Others have files of that name as well.
  if grep -qs '"token_file"' "$status"; then
    end
  fi
}

# Ends all processes and removes the folder. If some do not end, the folder stays, so that one can look.
end() {
  if [ -e "$DIR/cluster.json" ]; then
    "$WEFT" cluster down --dir "$DIR"
  fi
  rm -rf "$DIR"
}

fail() {
  echo "$1" >&2
  exit 1
}

case "${1-}" in
  up) up ;;
  down) down ;;
  *) fail "usage: cluster.sh up | down" ;;
esac
