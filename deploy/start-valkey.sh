#!/bin/sh
# The password goes in by standard input: as an argument it would show in `docker ps` and `ps`.
set -eu
exec valkey-server - <<SETTINGS
$(cat /etc/holdfast/valkey.conf)
maxmemory $VALKEY_MAXMEMORY
requirepass $VALKEY_PASSWORD
SETTINGS
