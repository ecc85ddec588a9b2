-- replay: a person runs a final job again, under the same idempotency key, and is written down for it.
-- Guards against: running again what is running or owed already, and what has lost its payload.
-- `only` may name the one state it is run again from: who asked for dead letters does not mean what was put away since.
-- That is one of many, whose replay is written down as a whole (tasks/bulk_replays.py): job by job, a great one would push
-- everything else out of the trail.
local id, by, only = arg(1), arg(2), arg(3)
local state, task, queue, source, event = read(id, 'state', 'task', 'queue', 'source', 'event')
if not state then return { 'unknown' } end
if UNFINISHED[state] then return { 'unfinished' } end
if only ~= '' and state ~= only then return { state } end
if redis.call('EXISTS', body_key(source, event)) == 0 then return { 'pruned' } end
if state ~= DEAD then -- its event may be about to age away
  local ekey, jkey = event_key(source, event), P .. 'jobs:' .. source .. ':' .. event
  redis.call('HINCRBY', ekey, 'open', 1)
  if state == DISCARDED then redis.call('HINCRBY', ekey, 'discarded', -1) end
  for _, key in ipairs({ ekey, jkey, body_key(source, event) }) do redis.call('PERSIST', key) end
  for _, job in ipairs(redis.call('LRANGE', jkey, 0, -1)) do redis.call('PERSIST', job_key(job)) end
end
move(id, state, PENDING, 'tries', 0, 'due', now, 'replayed_by', by)
redis.call('ZREM', P .. 'dead', id)
redis.call('HINCRBY', job_key(id), 'replays', 1)
redis.call('HDEL', job_key(id), 'finished', 'discarded', 'why', 'lost')
if only == '' then
  redis.call('XADD', P .. 'audit', 'MAXLEN', '~', 100000, '*', 'action', 'replay', 'job', id, 'by', by, 'was', state)
end
ring(id, task, queue)
return { 'ok', unpack(bells) }
