-- fail: the attempt ended in an error. The job is retried at `due`, or becomes a dead letter if that is empty.
-- The time is stored here, not in a Celery countdown, so that it survives restarts and the loss of the broker's data.
-- The follow-ups of a dead letter, such as a notification, are created in the same step.
-- Guards against: a late failure that would retry or end a job that another worker holds.
local id, token, reason, due = arg(1), arg(2), arg(3), arg(4)
if not is_held(id, token) then return { 'stale' } end
local queue, key, source, event, type, received = read(id, 'queue', 'key', 'source', 'event', 'type', 'received')
close_attempt(id, token, 'failed', reason)
leave_running(id)
if due == '' then
  make_dead(id, RUNNING, reason)
  create_jobs(5, (#ARGV - 9) / 7, { source = source, id = event, type = type, received = received })
else
  change_state(id, RUNNING, PENDING, 'reason', reason, 'due', due)
  schedule(id, queue, tonumber(due))
end
unlock(id, key)
return with_bells('ok')
