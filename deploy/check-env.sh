#!/bin/sh
# Fail if secrets in .env are missing, weak or unchanged from the example: one line for each, which never shows its value.
set -eu
cd "$(dirname "$0")/.."

wrong=0
refused=" "  # the names, each between spaces
refuse() { echo ".env: $1" >&2; wrong=1; refused="$refused${1%% *} "; }
value() { sed -n "s/^$1=//p" .env | tail -n 1 | sed 's/^[[:space:]]*//; s/[[:space:]]*$//'; }  # as in compose, the last line wins

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
for name in $(sed -n 's/^ *\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' .env); do
    grep -Eq "^ +$name:|[{]$name[}:]" docker-compose.yml || [ "${name#COMPOSE_}" != "$name" ] ||
        refuse "$name is not used by docker-compose.yml; it must be a name of docs/settings.md or .env.example"
done
for name in POSTGRES_PASSWORD POSTGRES_ADMIN_PASSWORD VALKEY_PASSWORD VALKEY_FLOWER_PASSWORD; do
    must $name '[A-Za-z0-9_-]{16,}' "16 or more letters, digits, - and _"
done
must FLOWER_BASIC_AUTH '[A-Za-z0-9_-]+:[A-Za-z0-9_-]{16,}' "user:password, the password 16 or more letters, digits, - and _"

# The bytes of a size such as 1gb, 512m or 1073741824; nothing for what is no size.
bytes() {
    echo "$1" | tr 'A-Z' 'a-z' | sed -n 's/^\([0-9]\{1,\}\)\([kmg]\{0,1\}\)b\{0,1\}$/\1 \2/p' |
        awk '{ printf "%.0f", $1 * ($2 == "k" ? 1024 : $2 == "m" ? 1048576 : $2 == "g" ? 1073741824 : 1) }'
}

# must_hold NAME DEFAULT BYTES DESCRIPTION: a limit of memory.
must_hold() {
    size=$(value "$1")
    size=${size:-$2}
    given=$(bytes "$size")
    if [ -z "$3" ] || [ -z "$given" ] || [ "$given" -lt "$3" ]; then
        refuse "$1 is $size; it must be at least $4"
    fi
}

maxmemory=$(value VALKEY_MAXMEMORY)
maxmemory=${maxmemory:-1gb}
needed=$(bytes "$maxmemory")
must_hold VALKEY_MEM_LIMIT 2g "${needed:+$((2 * needed))}" "twice VALKEY_MAXMEMORY ($maxmemory)"
processes=$(value WEB_PROCESSES | grep -Ex '[1-9][0-9]?' || echo 1)  # the receiver refuses any other value
must_hold RECEIVER_MEM_LIMIT 1g $((processes * 768 * 1048576)) "768m for each of WEB_PROCESSES ($processes)"

# must_be_secrets NAME PATTERN DESCRIPTION: each of a comma-separated list, if there is one; one character again and again is none.
must_be_secrets() {
    case $(value "$1") in "" | *change-me*) return ;; esac
    value "$1" | tr ',' '\n' | sed 's/^ *//; s/ *$//; /^$/d' | while read -r one; do
        printf '%s\n' "$one" | LC_ALL=C grep -Eqx "$2" || exit 1
        [ "$(printf '%s' "${one#whsec_}" | fold -w 1 | sort -u | wc -l)" -ge 8 ] || exit 1
    done || refuse "$1 is (hidden); it must be one or more secrets, comma-separated, each $3"
}

must_be_secrets STRIPE_WEBHOOK_SECRET 'whsec_[A-Za-z0-9+/=_-]{24,}' "whsec_ and 24 or more letters and digits, as Stripe shows it"
must_be_secrets DOC_WEBHOOK_SECRET '[!-~]{16,}' "16 or more random characters"
for name in APP_WEBHOOK_SECRET HANDOFF_SECRET; do
    must_be_secrets $name 'whsec_([A-Za-z0-9+/]{4}){8,21}([A-Za-z0-9+/]{2,3})?={0,2}' "whsec_ and the base64 of 24 to 64 random bytes"
done
must_be_secrets API_KEYS '([a-z0-9][a-z0-9._-]*:[a-z+]+:[!-~]{24,}|[!-9;-~]{24,})' "24 or more random characters, or name:scopes:key"
sources="$(value STRIPE_WEBHOOK_SECRET)$(value DOC_WEBHOOK_SECRET)$(value SOURCES_FILE)"
if [ -z "$sources$(value STRIPE_WEBHOOK_SECRET_FILE)$(value DOC_WEBHOOK_SECRET_FILE)" ]; then
    refuse "STRIPE_WEBHOOK_SECRET is not set; it must be your endpoint's signing secret (or set DOC_WEBHOOK_SECRET)"
fi

# Each version of compose changes these in its own way, or stops.
for name in $(grep -E "^ *[A-Za-z_][A-Za-z0-9_]*=([[:space:]]*[\"']|.*[$]|.*[[:space:]]#)" .env | sed 's/^ *//; s/=.*//' | sort -u); do
    case $refused in *" $name "*) continue ;; esac
    refuse "$name is (hidden); it must have no \$ (in a URL: %24), no quote at its start and no # after a space: compose would change it"
done
exit $wrong
