-- replay: run a final job again for the person `by`, with the same idempotency key, with an entry in the audit log.
-- Guards against: running a job again that is unfinished, or whose payload is gone.
-- `only` is for a bulk replay (tasks/bulk_replays.py): if set, the job must be in this state, because a dead letter may have
-- been discarded since the person asked. The whole bulk replay is one row of the table `replays` instead of an entry for each job.
local id, by, only = arg(1), arg(2), arg(3)
local state, task, queue, source, event = read(id, 'state', 'task', 'queue', 'source', 'event')
if not state then return { 'unknown' } end
if UNFINISHED[state] then return { 'unfinished' } end
if only ~= '' and state ~= only then return { state } end
if redis.call('EXISTS', body_key(source, event)) == 0 then return { 'pruned' } end
if state ~= DEAD then -- its event may be about to expire
  local ekey, jkey = event_key(source, event), P .. 'jobs:' .. source .. ':' .. event
  redis.call('HINCRBY', ekey, 'open', 1)
  if state == DISCARDED then redis.call('HINCRBY', ekey, 'discarded', -1) end
  for _, key in ipairs({ ekey, jkey, body_key(source, event) }) do redis.call('PERSIST', key) end
  for _, job in ipairs(redis.call('LRANGE', jkey, 0, -1)) do redis.call('PERSIST', job_key(job)) end
end
change_state(id, state, PENDING, 'tries', 0, 'due', now, 'replayed_by', by)
redis.call('ZREM', P .. 'dead', id)
redis.call('HINCRBY', job_key(id), 'replays', 1)
redis.call('HDEL', job_key(id), 'finished', 'discarded', 'why', 'lost', 'unanswered')
if only == '' then
  audit('action', 'replay', 'job', id, 'by', by, 'was', state)
end
ring(id, task, queue)
return with_bells('ok')
