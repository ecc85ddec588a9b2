-- finish: the job is done, and its follow-ups exist, in one step.
-- Guards against: a death between "done" and "what comes next"; a late finish under somebody else's lease.
local id, token = arg(1), arg(2)
local state, current, source, event, type, received, key, reason =
  read(id, 'state', 'token', 'source', 'event', 'type', 'received', 'key', 'reason')
if state ~= RUNNING or current ~= token then
  if state == SUCCEEDED and current == token then return { 'ok' } end -- asked once more; the sweep rings, if need be
  return { 'stale' }
end
move(id, RUNNING, SUCCEEDED, 'finished', now)
close_attempt(id, token, 'succeeded')
if reason then redis.call('HDEL', job_key(id), 'reason') end
redis.call('ZREM', P .. 'later', id)
create_all(3, (#ARGV - 7) / 7, { source = source, id = event, type = type, received = received })
if redis.call('HINCRBY', event_key(source, event), 'open', -1) == 0 then settle(source, event, received) end
unlock(id, key)
return { 'ok', unpack(bells) }
