#!/bin/sh
# The passwords are passed on standard input: as arguments they would be visible in `docker ps` and `ps`.
#
# holdfast is the user of receiver and workers: everything but what an administrator does. flower may watch tasks: it
# receives their events, and reads the lengths of Celery's queues, but neither reads nor changes the record. Nobody can log in as
# default, but Valkey itself does when it loads its file: a transaction that default may not make would be left out.
set -eu
here=$(dirname "$0")
celery='~_kombu.binding* ~celeryev.* ~*.reply.celery.pidbox*'
lengths='%R~payments* %R~fulfilment* %R~documents* %R~downloads* %R~notifications* %R~handoffs*'
commands='-@all +@connection +@pubsub +@transaction +evalsha +script|load +script|exists +llen +brpop +lpush +sadd +srem +smembers +exists +del +time +zadd +zrem +zrangebyscore -@admin -@dangerous'
exec valkey-server - <<SETTINGS
$(cat "$here/valkey.conf")
maxmemory $VALKEY_MAXMEMORY
user default off resetpass ~* &* +@all
user holdfast on >$VALKEY_PASSWORD ~* &* +@all -@admin -@dangerous +info +config|get
user flower on >$VALKEY_FLOWER_PASSWORD resetkeys $celery $lengths resetchannels &/0.celeryev/* &/0.celery.pidbox $commands
SETTINGS
