#!/bin/sh
# Fail if secrets in .env are missing, weak or unchanged from the example: one line for each, which never shows its value.
set -eu
cd "$(dirname "$0")/.."

wrong=0
refuse() { echo ".env: $1" >&2; wrong=1; }
value() { sed -n "s/^$1=//p" .env | tail -n 1; }  # as in compose, the last line wins

# must NAME PATTERN DESCRIPTION
must() {
    case $(value "$1") in
    *change-me*) ;;  # reported below
    "") refuse "$1 is not set; it must be $3" ;;
    *) value "$1" | grep -Eqx "$2" || refuse "$1 is (hidden); it must be $3" ;;
    esac
}

if [ ! -r .env ]; then
    echo ".env does not exist; create it with: sh deploy/make-env.sh" >&2
    exit 1
fi
for name in $(sed -n 's/^\([A-Z_]*\)=.*change-me.*/\1/p' .env); do
    refuse "$name is unchanged from the example; it must be a value of your own"
done
must POSTGRES_PASSWORD '[A-Za-z0-9_-]{16,}' "16 or more letters, digits, - and _"
must VALKEY_PASSWORD '[A-Za-z0-9_-]{16,}' "16 or more letters, digits, - and _"
must FLOWER_BASIC_AUTH '[A-Za-z0-9_-]+:[A-Za-z0-9_-]{16,}' "user:password, the password 16 or more letters, digits, - and _"
if [ -z "$(value STRIPE_WEBHOOK_SECRET)$(value DOC_WEBHOOK_SECRET)$(value SOURCES_FILE)" ]; then
    refuse "STRIPE_WEBHOOK_SECRET is not set; it must be your endpoint's signing secret (or set DOC_WEBHOOK_SECRET)"
fi
exit $wrong
