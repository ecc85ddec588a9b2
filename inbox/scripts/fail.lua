-- fail: the attempt ended in an error; the job is due again at a time, or dead where that time is empty.
-- The time lives here, not in a Celery countdown, so that it survives every restart and broker wipe.
-- What a dead job leaves behind, such as word to whoever waits for it, exists in the same step.
-- Guards against: a late failure that would bury or delay a job somebody else holds.
local id, token, reason, due = arg(1), arg(2), arg(3), arg(4)
if not held(id, token) then return { 'stale' } end
local queue, key, source, event, type, received = read(id, 'queue', 'key', 'source', 'event', 'type', 'received')
close_attempt(id, token, 'failed', reason)
if due == '' then
  bury(id, queue, reason)
  create_all(5, (#ARGV - 9) / 7, { source = source, id = event, type = type, received = received })
else
  move(id, RUNNING, PENDING, 'reason', reason, 'due', due)
  schedule(id, queue, tonumber(due))
end
unlock(id, key)
return { 'ok', unpack(bells) }
