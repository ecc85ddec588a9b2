-- release: return a job without counting the attempt. Either its worker must stop, and another runs the job at once; or the
-- job must run later, at `due`, for `reason`. In the second case no attempt is kept: otherwise the job would grow with every
-- attempt while another service is down for days.
-- Guards against: waiting until the lease of a stopping worker expires; returning a job that another worker holds.
local id, token, reason, due = arg(1), arg(2), arg(3), arg(4)
if not is_held(id, token) then return { 'stale' } end
if due == '' then
  give_back(id, token, reason)
else
  local queue, key, tries = read(id, 'queue', 'key', 'tries')
  change_state(id, RUNNING, PENDING, 'tries', tries - 1, 'token', token + 1)
  close_attempt(id, token, 'put off')
  leave_running(id)
  redis.call('HDEL', job_key(id), 'attempt:' .. token)
  redis.call('HSET', job_key(id), 'due', due, 'reason', reason)
  schedule(id, queue, tonumber(due))
  unlock(id, key)
end
return with_bells('ok')
