#!/bin/sh
# Copies the peers into a folder, and installs their packages there from their locks, separate from Holdfast's own.
# A failure is printed; the peers that need the package are then left out of the comparison.
#
#     sh bench/peers/install.sh .venv/bin/python var/bench
set -eu
echo "installing the peers' packages"
mkdir -p "$2"
cp -R "$(dirname "$0")/." "$2"
"$1" -m venv --without-pip "$2/venv" || true
"$1" -m pip --python "$2/venv" install -qq --disable-pip-version-check --require-hashes -r "$2/requirements.lock" || true
cd "$2/bullmq"
# Not `npm ci`, which refuses a lock without the binary packages of other systems.
npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error > /dev/null || true
