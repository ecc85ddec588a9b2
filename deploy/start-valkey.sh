#!/bin/sh
# The password is passed on standard input: as an argument it would be visible in `docker ps` and `ps`.
set -eu
exec valkey-server - <<SETTINGS
$(cat /etc/holdfast/valkey.conf)
maxmemory $VALKEY_MAXMEMORY
requirepass $VALKEY_PASSWORD
SETTINGS
