-- release: a job is given back, and the attempt does not count: by a worker that must stop, to be done at once; or
-- because its turn is at a later time, `due`, for `reason`. Of that no attempt is kept, or a peer that is away for days
-- would make the job grow with every look.
-- Guards against: waiting out the lease of a worker that was told to stop; giving back what somebody else holds.
local id, token, reason, due = arg(1), arg(2), arg(3), arg(4)
if not held(id, token) then return { 'stale' } end
local task, queue, key, tries = read(id, 'task', 'queue', 'key', 'tries')
move(id, RUNNING, PENDING, 'tries', tries - 1, 'token', token + 1)
if due == '' then
  close_attempt(id, token, 'released', reason)
  ring(id, task, queue)
else
  close_attempt(id, token, 'put off')
  redis.call('HDEL', job_key(id), 'attempt:' .. token)
  redis.call('HSET', job_key(id), 'due', due, 'reason', reason)
  schedule(id, queue, tonumber(due))
end
unlock(id, key)
return { 'ok', unpack(bells) }
