-- lease: start an attempt of one job; see lease_job.
-- Guards against: two workers with a doorbell each for the same job; two simultaneous jobs with one ordering key.
-- Without a lease it returns the reason, which is normal.
-- Without an id it takes the job that has waited for the end of the holder's last one, or removes the next doorbell from the
-- broker's list itself, if the broker is this same server. A doorbell for a task that was not requested stays there for
-- Celery. Returns none if there is nothing to take.
-- A client whose connection breaks sends the request again with the same nonce. If the first request got a lease but its
-- reply was lost, the client gets the same lease again, instead of a second one or none until the first has expired.
local id, holder, lease_ms, nonce, task_id, list = arg(1), arg(2), tonumber(arg(3)), arg(4), arg(5), arg(6)

local function is_requested_task(task)
  for i = 7, #ARGV - 5 do
    if arg(i) == task then return true end
  end
end

-- `argsrepr` is Python's repr of the list with the job id. An id that needs escapes is left to Celery.
local function job_of(message)
  local headers = cjson.decode(message).headers
  if is_requested_task(headers.task) then return string.match(headers.argsrepr, "^%['([^'\\]+)'%]$"), headers.id end
end

local function take_unlocked(job)
  redis.call('DEL', P .. 'unlocked:' .. holder)
  local state, task, queue = read(job, 'state', 'task', 'queue')
  if state == PENDING and queue == list and is_requested_task(task) then return job end
end

local function take_next_doorbell()
  local message = redis.call('RPOP', list)
  if not message then return end
  local ok, job, task = pcall(job_of, message)
  if ok and job then return job, task end
  redis.call('RPUSH', list, message)
end

local function take_next()
  local last, unlocked = unpack(redis.call('MGET', P .. 'taken:' .. holder, P .. 'unlocked:' .. holder))
  if last and string.sub(last, 1, #nonce) == nonce then return string.sub(last, #nonce + 1) end
  local job, task = unlocked and take_unlocked(unlocked)
  if not job then job, task = take_next_doorbell() end
  if job then redis.call('SET', P .. 'taken:' .. holder, nonce .. job, 'PX', lease_ms) end
  return job, task
end

if id == '' then id, task_id = take_next() end
if not id then return { 'none' } end
return lease_job(id, holder, lease_ms, nonce, task_id)
