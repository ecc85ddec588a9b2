-- Put in front of every script. KEYS[1] is the prefix, whose hash tag keeps all keys in one slot of a cluster.
-- ARGV[1..5] are the same for every script: the time (empty: the server's own clock, the only one all workers share),
-- and the store's settings. The script's own arguments follow: arg(1), arg(2), …
--
-- Every job that is not final is owed, and stands in exactly one of two sorted sets:
--   later         its time is known: a retry, a delayed job, one that waits for its ordering key, or the end of a lease
--   rung:<queue>  its doorbell has been rung; the score says when to ring again if nobody came
-- and, for people, in owed:<queue>, by the time since which it is: unlike its due time, no retry moves that.

local P, now = KEYS[1], tonumber(ARGV[1])
local ring_again_ms, max_tries, retention_ms, payload_ms = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local function arg(i) return ARGV[5 + i] end
local function job_key(id) return P .. 'job:' .. id end
local function event_key(source, id) return P .. 'event:' .. source .. ':' .. id end
local function body_key(source, id) return P .. 'body:' .. source .. ':' .. id end
local function count(what, n) redis.call('HINCRBY', P .. 'counts', what, n) end

local function read(id, ...)
  local values = redis.call('HMGET', job_key(id), ...)
  return unpack(values)
end

-- The codes of a job's state, as stored. Other versions read them, so they never change; inbox/job.py maps them to the
-- states that people see. A pending job whose due time is in the future is shown as scheduled.
local PENDING, RUNNING, SUCCEEDED, DEAD, DISCARDED = 'ready', 'leased', 'succeeded', 'dead', 'discarded'
local UNFINISHED = { [PENDING] = true, [RUNNING] = true }
local function owed_since(id, queue, when)
  redis.call('ZADD', P .. 'owed:' .. queue, when, id)
  redis.call('SADD', P .. 'queues', queue)
end

-- The only place where a job changes its state; what else is to be written of it follows, names and values.
local function move(id, from, to, ...)
  redis.call('HSET', job_key(id), 'state', to, ...)
  count(from, -1)
  count(to, 1)
  if UNFINISHED[from] and UNFINISHED[to] then return end
  local queue = read(id, 'queue')
  if UNFINISHED[to] then return owed_since(id, queue, now) end
  redis.call('ZREM', P .. 'owed:' .. queue, id)
end

local function owe_later(id, queue, when)
  redis.call('ZREM', P .. 'rung:' .. queue, id)
  redis.call('ZADD', P .. 'later', when, id)
end

-- A retry, a delay or a timer. `scheduled` is for people: it counts and lists these jobs. What is in the past is ignored
-- there and removed by the next sweep.
local function schedule(id, queue, when)
  owe_later(id, queue, when)
  redis.call('ZADD', P .. 'scheduled', when, id)
end

local function owe_rung(id, queue)
  redis.call('ZREM', P .. 'later', id)
  redis.call('ZADD', P .. 'rung:' .. queue, now + ring_again_ms, id)
end

-- The newest due time among the jobs of a queue that were ever leased. Queues are first in, first out: whoever was rung
-- longer ago than that has had its doorbell taken out of the queue, too. A mark in the future is of a clock that was
-- wrong, and says nothing.
local function served(queue)
  local mark = tonumber(redis.call('HGET', P .. 'served', queue) or 0)
  return mark > now and 0 or mark
end

-- What the caller must ring for: a flat list of id, task, queue; each job once.
local bells, told = {}, {}
local function ring(id, task, queue)
  owe_rung(id, queue)
  if told[id] then return end
  told[id] = true
  bells[#bells + 1] = id
  bells[#bells + 1] = task
  bells[#bells + 1] = queue
end

-- A job has let go of its ordering key: whoever has waited longest may try next.
local function unlock(id, key)
  if key == '' or redis.call('GET', P .. 'lock:' .. key) ~= id then return end
  redis.call('DEL', P .. 'lock:' .. key)
  local first = redis.call('ZPOPMIN', P .. 'waiting:' .. key)[1]
  if first then ring(first, read(first, 'task', 'queue')) end
end

-- How attempts end and how long they take, by task, for inbox/queries.py: `<task>:<outcome>`, `<task>:<up to ms>`.
local ATTEMPT_MS = { 10, 50, 250, 1000, 5000, 30000, 120000 }
local function tally(task, outcome, ms)
  local upto = 'inf'
  for i = #ATTEMPT_MS, 1, -1 do
    if ms <= ATTEMPT_MS[i] then upto = ATTEMPT_MS[i] end
  end
  redis.call('HINCRBY', P .. 'attempts', task .. ':' .. outcome, 1)
  redis.call('HINCRBY', P .. 'attempts', task .. ':' .. upto, 1)
  redis.call('HINCRBY', P .. 'attempts', task .. ':ms', ms)
  if outcome == 'failed' or outcome == 'lost' then count('failed', 1) end
end

local function close_attempt(id, attempt, outcome, reason)
  local task, raw = read(id, 'task', 'attempt:' .. attempt)
  local entry = cjson.decode(raw)
  entry.ended, entry.outcome, entry.reason = now, outcome, reason
  redis.call('HSET', job_key(id), 'attempt:' .. attempt, cjson.encode(entry))
  tally(task, outcome, now - entry.started)
end

local function bury(id, queue, reason)
  move(id, RUNNING, DEAD, 'reason', reason, 'finished', now)
  redis.call('ZREM', P .. 'later', id)
  redis.call('ZADD', P .. 'dead', now, id)
end

-- A lease ran out. The new token makes the old holder's finish worthless from here on. Only attempts that ended so count
-- here: how many others a job may have, its own policy says (inbox/retry.py).
local function expire(id)
  local token, queue, key = read(id, 'token', 'queue', 'key')
  redis.call('HINCRBY', job_key(id), 'token', 1)
  close_attempt(id, token, 'lost', 'the lease ran out: the worker died or stalled')
  count('expired', 1)
  local lost = redis.call('HINCRBY', job_key(id), 'lost', 1)
  if lost >= max_tries then
    bury(id, queue, 'the worker died or stalled in ' .. lost .. ' attempts')
  else
    move(id, RUNNING, PENDING)
    owe_later(id, queue, now)
  end
  unlock(id, key)
end

-- True if `token` still holds the job; a late finisher whose lease ran out but was given to nobody is accepted.
local function held(id, token)
  local state, current = read(id, 'state', 'token')
  return state == RUNNING and current == token
end

-- Create a job unless it exists (a follow-up of a replayed job does). `message` is the ready-made Celery message for a
-- broker that lives in this same server, or empty.
local function create(id, task, queue, key, args, delay_ms, message, event)
  if redis.call('EXISTS', job_key(id)) == 1 then return end
  redis.call('HSET', job_key(id), 'task', task, 'queue', queue, 'key', key, 'args', args, 'state', PENDING,
    'tries', 0, 'token', 0, 'due', now + delay_ms, 'created', now,
    'source', event.source, 'event', event.id, 'type', event.type, 'received', event.received)
  redis.call('HINCRBY', event_key(event.source, event.id), 'open', 1)
  redis.call('RPUSH', P .. 'jobs:' .. event.source .. ':' .. event.id, id)
  count(PENDING, 1)
  owed_since(id, queue, now + delay_ms)
  if delay_ms > 0 then return schedule(id, queue, now + delay_ms) end
  if message == '' then return ring(id, task, queue) end
  owe_rung(id, queue)
  redis.call('LPUSH', queue, message) -- the list that kombu reads; see docs/decisions/0002
end

-- So many jobs, as flat arguments of seven from arg(first) on.
local function create_all(first, jobs, event)
  for i = first, first + 7 * (jobs - 1), 7 do
    create(arg(i), arg(i + 1), arg(i + 2), arg(i + 3), arg(i + 4), tonumber(arg(i + 5)), arg(i + 6), event)
  end
end

-- An event comes into being with its raw bytes and its jobs.
local function begin(source, id, type, body, deliveries, jobs, first)
  redis.call('HSET', event_key(source, id), 'type', type, 'received', now, 'open', 0, 'deliveries', deliveries)
  redis.call('SET', body_key(source, id), body)
  redis.call('ZADD', P .. 'events', now, source .. ':' .. id)
  create_all(first, jobs, { source = source, id = id, type = type, received = now })
end

-- What is remembered of an event that has aged away: 12 bytes of its name's digest, in the set of the week (at
-- RETENTION_DAYS=35) in which it may be forgotten. `seen` lists the sets; each expires as a whole.
local function digest(source, id)
  local hex = redis.sha1hex(source .. ':' .. id)
  return (string.gsub(string.sub(hex, 1, 24), '..', function(byte) return string.char(tonumber(byte, 16)) end))
end

local function remember(source, id, until_ms)
  local span = math.floor(retention_ms / 5)
  local set = math.ceil(until_ms / span) * span
  redis.call('SADD', P .. 'seen:' .. set, digest(source, id))
  if redis.call('ZSCORE', P .. 'seen', set) then return end
  redis.call('PEXPIREAT', P .. 'seen:' .. set, set)
  redis.call('ZADD', P .. 'seen', set, set)
end

local function remembered(source, id)
  local it = digest(source, id)
  for _, set in ipairs(redis.call('ZRANGEBYSCORE', P .. 'seen', now, '+inf')) do
    if redis.call('SISMEMBER', P .. 'seen:' .. set, it) == 1 then return true end
  end
  return false
end

-- Nothing of this event is open: from now on it may age away, and is remembered, so that a resend stays a duplicate.
local function settle(source, id, received)
  local ekey, jkey, gone = event_key(source, id), P .. 'jobs:' .. source .. ':' .. id, now + payload_ms
  remember(source, id, math.max(received + retention_ms, gone))
  for _, job in ipairs(redis.call('LRANGE', jkey, 0, -1)) do redis.call('PEXPIREAT', job_key(job), gone) end
  for _, key in ipairs({ ekey, jkey, body_key(source, id) }) do redis.call('PEXPIREAT', key, gone) end
end
