#!/bin/sh
# Save, inspect, verify and restore a guest's memory, and compare it byte by byte.
# usage: demo.sh IMAGE    (snapmig must be on the PATH; `make demo` sees to all of it)
set -eu

image=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/snapmig-demo.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

size_on_disk() {
    du --block-size=1M "$1" | cut -f1
}

if grep -qs '"kind": "stand-in"' "$image.json"; then
    printf '\nNo QEMU here: this image is a STAND-IN made from program files, not a guest.\n'
    printf 'Figures with it say little about real guests; .ci/install-tools installs QEMU.\n'
fi

run snapmig save "$image" "$work/guest.snap"
run snapmig info "$work/guest.snap"
run snapmig verify "$work/guest.snap"
run snapmig restore "$work/guest.snap" "$work/restored.ram"
run cmp "$image" "$work/restored.ram"

printf '\nThe restored memory is the same, byte by byte.\n'
printf '%8s MiB  guest RAM (%s MiB of it in use)\n' \
    "$(($(stat -c %s "$image") / 1048576))" "$(size_on_disk "$image")"
printf '%8s MiB  snapshot on disk\n' "$(size_on_disk "$work/guest.snap")"
