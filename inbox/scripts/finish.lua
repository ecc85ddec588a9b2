-- finish: mark the job as succeeded and create its follow-ups, in one step.
-- Guards against: a crash between the two; a late finish while another worker holds the lease.
local id, token = arg(1), arg(2)
local state, current, source, event, type, received, key, reason =
  read(id, 'state', 'token', 'source', 'event', 'type', 'received', 'key', 'reason')
if state ~= RUNNING or current ~= token then
  -- The request was sent twice. If the doorbells of the follow-ups were lost with the first reply, the sweep rings again.
  if state == SUCCEEDED and current == token then return { 'ok' } end
  return { 'stale' }
end
change_state(id, RUNNING, SUCCEEDED, 'finished', now)
local holder = close_attempt(id, token, 'succeeded')
if reason then redis.call('HDEL', job_key(id), 'reason') end
leave_running(id)
create_jobs(3, (#ARGV - 7) / 7, { source = source, id = event, type = type, received = received })
if redis.call('HINCRBY', event_key(source, event), 'open', -1) == 0 then schedule_pruning(source, event, received) end
local unlocked = unlock(id, key)
-- If the holder asks for its next job in the same round trip, it gets this one (see lease). A hint only: its doorbell is rung.
if unlocked and holder then redis.call('SET', P .. 'unlocked:' .. holder, unlocked, 'PX', 60000) end
return with_bells('ok')
