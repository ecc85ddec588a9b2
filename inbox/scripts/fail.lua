-- fail: the attempt ended in an error; the job is due again at a time, or dead where that time is empty.
-- The time lives here, not in a Celery countdown, so that it survives every restart and broker wipe.
-- Guards against: a late failure that would bury or delay a job somebody else holds.
local id, token, reason, due = arg(1), arg(2), arg(3), arg(4)
if not held(id, token) then return { 'stale' } end
local queue, key = read(id, 'queue', 'key')
close_attempt(id, token, 'failed', reason)
redis.call('HSET', job_key(id), 'reason', reason)
if due == '' then
  bury(id, queue, reason)
else
  move(id, 'leased', 'ready')
  redis.call('HSET', job_key(id), 'due', due)
  owe_later(id, queue, tonumber(due))
end
unlock(id, key)
return { 'ok', unpack(bells) }
