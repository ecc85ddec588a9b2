-- lease: a compare-and-set that opens an attempt and hands out a fencing token.
-- Guards against: two workers with one doorbell each for the same job; two jobs with one ordering key at once.
-- Answers one word when there is no lease: unknown, done, busy, early or waiting. That is no fault of anybody's.
-- Without an id it takes the next doorbell of a queue out of the broker's list itself, where that is in this same
-- server; a doorbell for a task that is not among those named stays there for Celery. None: nothing to take.
-- A client whose connection breaks asks once more, by the same nonce: a lease that it was given, and did not hear of, is
-- given to it again, instead of a second one, or none until that has run out.
local id, holder, lease_ms, nonce, task_id, from = arg(1), arg(2), tonumber(arg(3)), arg(4), arg(5), arg(6)

local function takes(task)
  for i = 7, #ARGV - 5 do
    if arg(i) == task then return true end
  end
end

-- `argsrepr` is Python's way of writing the list of the one job id; an id that takes escapes is left to Celery.
local function rung_for(message)
  local headers = cjson.decode(message).headers
  if takes(headers.task) then return string.match(headers.argsrepr, "^%['([^'\\]+)'%]$"), headers.id end
end

local function next_doorbell()
  local last = redis.call('GET', P .. 'taken:' .. holder)
  if last and string.sub(last, 1, #nonce) == nonce then return string.sub(last, #nonce + 1), '' end
  local message = redis.call('RPOP', from)
  if not message then return end
  local sound, job, task = pcall(rung_for, message)
  if sound and job then
    redis.call('SET', P .. 'taken:' .. holder, nonce .. job, 'PX', lease_ms)
    return job, task
  end
  redis.call('RPUSH', from, message)
end

if id == '' then id, task_id = next_doorbell() end
if not id then return { 'none' } end

local function live(job)
  local state, until_ms = read(job, 'state', 'until')
  return state == RUNNING and tonumber(until_ms) > now
end

-- Who asks for a lease rings for nobody: whoever an expiry lets go is rung by the next sweep.
local function expire_quietly(job)
  expire(job)
  for i = 1, #bells, 3 do owe_later(bells[i], bells[i + 2], now) end
end

local function given(token, first)
  local task, source, event, type, received, args, tries, replays =
    read(id, 'task', 'source', 'event', 'type', 'received', 'args', 'tries', 'replays')
  local body = redis.call('GET', body_key(source, event)) or ''
  return { 'leased', id, token, tries, args, source, event, type, body, received, replays or 0, first, task, task_id }
end

if read(id, 'state') == RUNNING then
  if live(id) then
    local token, by = read(id, 'token', 'nonce')
    if by ~= nonce then return { 'busy' } end
    task_id = cjson.decode(read(id, 'attempt:' .. token)).task_id
    return given(token, 0)
  end
  expire_quietly(id)
end
local state, due, key, queue, before, tries = read(id, 'state', 'due', 'key', 'queue', 'token', 'tries')
if not state then return { 'unknown' } end
if state ~= PENDING then return { 'done' } end
if tonumber(due) > now then return { 'early' } end

if key ~= '' then
  local other = redis.call('GET', P .. 'lock:' .. key)
  if other and other ~= id then
    if live(other) then
      -- Come back when the other lets go (see unlock), or at the latest when its lease is over.
      redis.call('ZADD', P .. 'waiting:' .. key, read(id, 'received'), id)
      owe_later(id, queue, read(other, 'until'))
      return { 'waiting' }
    end
    if read(other, 'state') == RUNNING then expire_quietly(other) end
  end
  redis.call('ZREM', P .. 'waiting:' .. key, id)
  redis.call('SET', P .. 'lock:' .. key, id)
end

-- A time, not a number: a replica that took over without having heard of the last lease must not give its token again.
local token = math.max(before + 1, now)
move(id, PENDING, RUNNING, 'token', token, 'tries', tries + 1, 'until', now + lease_ms, 'nonce', nonce,
  'attempt:' .. token, cjson.encode({ started = now, holder = holder, task_id = task_id }))
owe_later(id, queue, now + lease_ms)
if tonumber(due) > served(queue) then redis.call('HSET', P .. 'served', queue, due) end
return given(token, before == '0' and 1 or 0)
