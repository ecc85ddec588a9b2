-- replay: a person runs a final job again, under the same idempotency key, and is written down for it.
-- Guards against: running again what is running or owed already, and what has lost its payload.
local id, by = arg(1), arg(2)
local state, task, queue, source, event = read(id, 'state', 'task', 'queue', 'source', 'event')
if not state then return { 'unknown' } end
if state ~= 'dead' and state ~= 'succeeded' then return { 'owed' } end
if redis.call('EXISTS', body_key(source, event)) == 0 then return { 'pruned' } end
if state == 'succeeded' then
  local ekey, jkey = event_key(source, event), P .. 'jobs:' .. source .. ':' .. event
  redis.call('HINCRBY', ekey, 'open', 1)
  for _, key in ipairs({ ekey, jkey, body_key(source, event) }) do redis.call('PERSIST', key) end
  for _, job in ipairs(redis.call('LRANGE', jkey, 0, -1)) do redis.call('PERSIST', job_key(job)) end
end
move(id, state, 'ready')
redis.call('ZREM', P .. 'dead', id)
redis.call('HSET', job_key(id), 'tries', 0, 'due', now)
redis.call('HINCRBY', job_key(id), 'replays', 1)
redis.call('HDEL', job_key(id), 'finished')
redis.call('XADD', P .. 'audit', 'MAXLEN', '~', 100000, '*', 'action', 'replay', 'job', id, 'by', by, 'was', state)
ring(id, task, queue)
return { 'ok', unpack(bells) }
