-- finish: the job is done, and its follow-ups exist, in one step.
-- Guards against: a death between "done" and "what comes next"; a late finish under somebody else's lease.
local id, token = arg(1), arg(2)
if not held(id, token) then
  local state, current = read(id, 'state', 'token')
  if state == 'succeeded' and current == token then return { 'ok' } end -- asked once more; the sweep rings, if need be
  return { 'stale' }
end
local source, event, type, received, key = read(id, 'source', 'event', 'type', 'received', 'key')
move(id, 'leased', 'succeeded')
close_attempt(id, token, 'succeeded')
redis.call('HSET', job_key(id), 'finished', now)
redis.call('HDEL', job_key(id), 'reason')
redis.call('ZREM', P .. 'later', id)
create_all(3, (#ARGV - 7) / 7, { source = source, id = event, type = type, received = received })
if redis.call('HINCRBY', event_key(source, event), 'open', -1) == 0 then settle(source, event) end
unlock(id, key)
return { 'ok', unpack(bells) }
