#!/bin/sh
# Pin the base images of the Dockerfile by digest, or renew the pins: each gets the digest that its tag has now.
set -eu
cd "$(dirname "$0")/.."

digest() { docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$1"; }

for image in $(sed -n 's/^FROM \([^ @]*:[^ @]*\).*/\1/p' Dockerfile); do
    found=$(digest "$image") || { echo "the digest of $image could not be read from its registry; nothing more was changed" >&2; exit 1; }
    printf '%s\n' "$found" | grep -Eqx 'sha256:[0-9a-f]{64}' || { echo "the digest of $image must be sha256:…" >&2; exit 1; }
    sed "s|^FROM $image\(@sha256:[0-9a-f]*\)\{0,1\} AS|FROM $image@$found AS|" Dockerfile >Dockerfile.pinned
    cat Dockerfile.pinned >Dockerfile
    rm Dockerfile.pinned
    echo "$image@$found"
done
