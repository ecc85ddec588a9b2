#!/bin/sh
# Create .env from .env.example, with a random value for each secret that can be chosen. Never replaces an existing .env.
set -eu
cd "$(dirname "$0")/.."

if [ -e .env ]; then
    echo ".env exists already; nothing was changed" >&2
    exit 1
fi

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

umask 077
sed -e "s/^\(POSTGRES_PASSWORD=\)change-me$/\1$(random)/" \
    -e "s/^\(POSTGRES_ADMIN_PASSWORD=\)change-me$/\1$(random)/" \
    -e "s/^\(VALKEY_PASSWORD=\)change-me$/\1$(random)/" \
    -e "s/^\(VALKEY_FLOWER_PASSWORD=\)change-me$/\1$(random)/" \
    -e "s/^\(FLOWER_BASIC_AUTH=admin:\)change-me$/\1$(random)/" \
    -e "s/^\(API_KEYS=\)change-me$/\1$(random)/" .env.example >.env
echo "created .env with random passwords; now set STRIPE_WEBHOOK_SECRET in it, then: make up"
