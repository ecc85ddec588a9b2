-- discard: a person puts a dead letter away, for a reason, and is written down for it. It may still be replayed.
-- Guards against: discarding what somebody has had run again meanwhile; two at once, of whom one is told so.
-- The event may age away when nothing else of it is open: what is put away needs no payload for ever.
local id, by, why = arg(1), arg(2), arg(3)
local state, source, event, received = read(id, 'state', 'source', 'event', 'received')
if not state then return { 'unknown' } end
if state == DISCARDED then return { 'already' } end
if state == SUCCEEDED then return { 'done' } end
if state ~= DEAD then return { 'unfinished' } end
local ekey = event_key(source, event)
move(id, DEAD, DISCARDED, 'discarded', now, 'why', why)
redis.call('ZREM', P .. 'dead', id)
redis.call('HINCRBY', ekey, 'discarded', 1)
redis.call('XADD', P .. 'audit', 'MAXLEN', '~', 100000, '*', 'action', 'discard', 'job', id, 'by', by, 'was', 'dead', 'why', why)
if redis.call('HINCRBY', ekey, 'open', -1) == 0 then settle(source, event, received) end
return { 'ok' }
