#!/bin/sh
# A night's work: save all guests, then read a part of what was saved, and note in the system's log
# how each went. The exit code is that of the first that was not well.
# usage: nightly.sh CONFIG    (snapmig must be on the PATH)
set -u

config=$1
worst=0

note() {
    logger -t snapmig -p "user.$1" -- "$2" || printf '%s: %s\n' "$1" "$2" >&2
}

step() {
    name=$1
    shift
    "$@"
    code=$?
    case $code in
        0) ;;
        6) note warning "$name: done, but something was skipped or a hook failed" ;;
        7) note err "$name: another run has the lock of a guest" ;;
        3) note err "$name: a snapshot is damaged" ;;
        *) note err "$name: failed with exit code $code" ;;
    esac
    if [ "$worst" -eq 0 ]; then worst=$code; fi
}

step save snapmig backup run --lock-wait 600 "$config"
step check snapmig backup check "$config"
exit "$worst"
