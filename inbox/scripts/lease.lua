-- lease: a compare-and-set that opens an attempt and hands out a fencing token.
-- Guards against: two workers with one doorbell each for the same job; two jobs with one ordering key at once.
-- Answers one word when there is no lease: unknown, done, busy, early or waiting. That is no fault of anybody's.
local id, holder, lease_ms, task_id = arg(1), arg(2), tonumber(arg(3)), arg(4)

local function live(job)
  local state, until_ms = read(job, 'state', 'until')
  return state == 'leased' and tonumber(until_ms) > now
end

-- Who asks for a lease rings for nobody: whoever an expiry lets go is rung by the next sweep.
local function expire_quietly(job)
  expire(job)
  for i = 1, #bells, 3 do owe_later(bells[i], bells[i + 2], now) end
end

local state = read(id, 'state')
if not state then return { 'unknown' } end
if state == 'succeeded' or state == 'dead' then return { 'done' } end
if live(id) then return { 'busy' } end
if state == 'leased' then expire_quietly(id) end
local state, due, key, queue = read(id, 'state', 'due', 'key', 'queue')
if state == 'dead' then return { 'done' } end
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
    if read(other, 'state') == 'leased' then expire_quietly(other) end
  end
  redis.call('ZREM', P .. 'waiting:' .. key, id)
  redis.call('SET', P .. 'lock:' .. key, id)
end

-- A time, not a number: a replica that took over without having heard of the last lease must not give its token again.
local before = read(id, 'token')
local token = math.max(before + 1, now)
redis.call('HSET', job_key(id), 'token', token)
redis.call('HINCRBY', job_key(id), 'tries', 1)
redis.call('HSET', job_key(id), 'until', now + lease_ms, 'holder', holder,
  'attempt:' .. token, cjson.encode({ started = now, holder = holder, task_id = task_id }))
move(id, 'ready', 'leased')
owe_later(id, queue, now + lease_ms)
if tonumber(due) > served(queue) then redis.call('HSET', P .. 'served', queue, due) end
local source, event, type, received, args, tries, replays =
  read(id, 'source', 'event', 'type', 'received', 'args', 'tries', 'replays')
local body = redis.call('GET', body_key(source, event)) or ''
return { 'leased', token, tries, args, source, event, type, received, body, replays or 0, before == '0' and 1 or 0 }
