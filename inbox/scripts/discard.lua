-- discard: discard a dead letter for the person `by`, with the reason `why` and an entry in the audit log. It can still be
-- replayed until it expires.
-- Guards against: discarding a job that has been replayed meanwhile; two people at once (the second gets `already`).
-- If no other job of the event is open, the event expires: a discarded job needs its payload only for the usual time.
local id, by, why = arg(1), arg(2), arg(3)
local state, source, event, received = read(id, 'state', 'source', 'event', 'received')
if not state then return { 'unknown' } end
if state == DISCARDED then return { 'already' } end
if state == SUCCEEDED then return { 'done' } end
if state ~= DEAD then return { 'unfinished' } end
local ekey = event_key(source, event)
change_state(id, DEAD, DISCARDED, 'discarded', now, 'why', why)
redis.call('ZREM', P .. 'dead', id)
redis.call('HINCRBY', ekey, 'discarded', 1)
audit('action', 'discard', 'job', id, 'by', by, 'was', 'dead', 'why', why)
if redis.call('HINCRBY', ekey, 'open', -1) == 0 then schedule_pruning(source, event, received) end
return { 'ok' }
