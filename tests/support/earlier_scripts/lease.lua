-- lease: a compare-and-set that starts an attempt and returns a fencing token.
-- Guards against: two workers with a doorbell each for the same job; two simultaneous jobs with one ordering key.
-- Without a lease it returns the reason: unknown, done, busy, early or waiting. All of them are normal.
-- Without an id it removes the next doorbell from the broker's list itself, if the broker is this same server. A doorbell
-- for a task that was not requested stays there for Celery. Returns none if there is nothing to take.
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

local function take_next_doorbell()
  local last = redis.call('GET', P .. 'taken:' .. holder)
  if last and string.sub(last, 1, #nonce) == nonce then return string.sub(last, #nonce + 1), '' end
  local message = redis.call('RPOP', list)
  if not message then return end
  local ok, job, task = pcall(job_of, message)
  if ok and job then
    redis.call('SET', P .. 'taken:' .. holder, nonce .. job, 'PX', lease_ms)
    return job, task
  end
  redis.call('RPUSH', list, message)
end

if id == '' then id, task_id = take_next_doorbell() end
if not id then return { 'none' } end

local function has_valid_lease(job)
  local state, until_ms = read(job, 'state', 'until')
  return state == RUNNING and tonumber(until_ms) > now
end

-- This script returns no doorbells: a job that can run because another's lease expired is rung by the next sweep.
local function expire_without_ringing(job)
  expire_lease(job)
  for i = 1, #bells, 3 do wait_until(bells[i], bells[i + 2], now) end
end

local function lease_reply(token, first)
  local task, source, event, type, received, args, tries, replays =
    read(id, 'task', 'source', 'event', 'type', 'received', 'args', 'tries', 'replays')
  local body = redis.call('GET', body_key(source, event)) or ''
  return { 'leased', id, token, tries, args, source, event, type, body, received, replays or 0, first, task, task_id, now }
end

if read(id, 'state') == RUNNING then
  if has_valid_lease(id) then
    local token, by = read(id, 'token', 'nonce')
    if by ~= nonce then return { 'busy' } end
    task_id = cjson.decode(read(id, 'attempt:' .. token)).task_id
    return lease_reply(token, 0)
  end
  expire_without_ringing(id)
end
local state, due, key, queue, last_token, tries = read(id, 'state', 'due', 'key', 'queue', 'token', 'tries')
if not state then return { 'unknown' } end
if state ~= PENDING then return { 'done' } end
if tonumber(due) > now then return { 'early' } end

if key ~= '' then
  local other = redis.call('GET', P .. 'lock:' .. key)
  if other and other ~= id then
    if has_valid_lease(other) then
      -- It is rung when the other job releases the key (see unlock), or at the latest when that job's lease ends.
      redis.call('ZADD', P .. 'waiting:' .. key, read(id, 'received'), id)
      wait_until(id, queue, read(other, 'until'))
      return { 'waiting' }
    end
    if read(other, 'state') == RUNNING then expire_without_ringing(other) end
  end
  redis.call('ZREM', P .. 'waiting:' .. key, id)
  redis.call('SET', P .. 'lock:' .. key, id)
end

-- The token is a time, not a counter: a replica that became master without having received the last lease must not issue
-- its token again.
local token = math.max(last_token + 1, now)
change_state(id, PENDING, RUNNING, 'token', token, 'tries', tries + 1, 'until', now + lease_ms, 'nonce', nonce,
  'attempt:' .. token, cjson.encode({ started = now, holder = holder, task_id = task_id }))
wait_until(id, queue, now + lease_ms)
redis.call('SADD', leases_key(holder), id)
if tonumber(due) > newest_leased_due(queue) then redis.call('HSET', P .. 'served', queue, due) end
return lease_reply(token, last_token == '0' and 1 or 0)
