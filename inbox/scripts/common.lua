-- Placed before every script. KEYS[1] is the prefix; its hash tag keeps all keys in one slot of a cluster.
-- ARGV[1..5] are the same for every script: the time (empty: the server's own clock, the only one all workers share),
-- and the store's settings. The script's own arguments follow: arg(1), arg(2), …
--
-- Every unfinished job is in exactly one of these sorted sets:
--   rung:<queue>     its doorbell has been rung, or a worker polls the queue; the score is the time to ring again if no
--                    worker has answered
--   later:<queue>    a retry or a delayed job, scored by its due time
--   blocked:<queue>  it waits for its ordering key, until the holder's end or expiry rings it; scored by its event's arrival
--   running          scored by the time at which its lease ends
-- Earlier versions, which may run beside this one, have one set `later` for all but the first (docs/decisions/0001).
-- And also in owed:<queue>, for statistics, scored by the time at which it was first due: a retry does not change that.

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

-- An entry in the audit log. It is kept for the retention, not by number, so that nobody can push out what they did.
local function audit(...)
  local keep_since = redis.call('TIME')[1] * 1000 - retention_ms
  redis.call('XADD', P .. 'audit', 'MINID', '~', string.format('%.0f', keep_since), '*', ...)
end

local function read(id, ...)
  local values = redis.call('HMGET', job_key(id), ...)
  return unpack(values)
end

-- Call `handle` for a job. A job that cannot be read, because something else has written to the store, must not stop what is
-- done for the others. Returns whether it could be handled.
local function handle_safely(handle, ...)
  local ok = pcall(handle, ...)
  if not ok then count('unreadable', 1) end
  return ok
end

-- The codes of a job's state, as stored. Other versions read them, so they never change; inbox/job.py maps them to the
-- displayed states. A pending job whose due time is in the future is displayed as scheduled.
local PENDING, RUNNING, SUCCEEDED, DEAD, DISCARDED = 'ready', 'leased', 'succeeded', 'dead', 'discarded'
local UNFINISHED = { [PENDING] = true, [RUNNING] = true }
local function mark_unfinished(id, queue, since)
  redis.call('ZADD', P .. 'owed:' .. queue, since, id)
  redis.call('SADD', P .. 'queues', queue)
end

-- The only place where a job changes its state. Further arguments: names and values of other fields to set.
local function change_state(id, from, to, ...)
  redis.call('HSET', job_key(id), 'state', to, ...)
  count(from, -1)
  count(to, 1)
  if UNFINISHED[from] and UNFINISHED[to] then return end
  local queue = read(id, 'queue')
  if UNFINISHED[to] then return mark_unfinished(id, queue, now) end
  redis.call('ZREM', P .. 'owed:' .. queue, id)
end

-- A job enters one of the sets, after it has left another.
local function wait_until(id, queue, when) redis.call('ZADD', P .. 'later:' .. queue, when, id) end
local function mark_rung(id, queue, at) redis.call('ZADD', P .. 'rung:' .. queue, (at or now) + ring_again_ms, id) end

-- A retry, a delay or a timer. `scheduled` serves only to count and list these jobs. Its entries in the past are ignored,
-- and the next sweep removes them.
local function schedule(id, queue, when)
  wait_until(id, queue, when)
  redis.call('ZADD', P .. 'scheduled', when, id)
end

-- Whether it is too early for a job. If the clock has been set back, the time of arrival of a job without delay is in the
-- future, too: that job is not early.
local function is_early(id, due)
  return tonumber(due) > now and redis.call('ZSCORE', P .. 'scheduled', id) ~= false
end

local function leave_running(id)
  if redis.call('ZREM', P .. 'running', id) == 0 then redis.call('ZREM', P .. 'later', id) end
end

-- An entry that stayed in `later` would let a sweep of an earlier version end the next lease.
local function leave_pending(id, queue)
  if redis.call('ZREM', P .. 'rung:' .. queue, id) == 1 then return end
  redis.call('ZREM', P .. 'later', id)
  if redis.call('ZREM', P .. 'later:' .. queue, id) == 0 then redis.call('ZREM', P .. 'blocked:' .. queue, id) end
end

-- The newest due time among the jobs of a queue that were ever leased. Queues are first in, first out: the doorbell of a
-- job that was to be rung again before that time has left the queue, too. A time in the future is ignored: it comes from
-- a clock that was wrong.
local function newest_leased_due(queue)
  local due = tonumber(redis.call('HGET', P .. 'served', queue) or 0)
  return due > now and 0 or due
end

-- What the workers with slots have said about a queue (see lease_next): the `tasks` that they run, each between two spaces,
-- and until when they are `quiet`, because one of them will have asked for jobs by then. A time further ahead comes from a
-- clock that was wrong.
local POLL_MS = 1000
local function slots_key(queue) return P .. 'slots:' .. queue end

local polled = {} -- by queue: the tasks for which no doorbell is needed
local function is_polled(queue, task)
  if not polled[queue] then
    local tasks, quiet = unpack(redis.call('HMGET', slots_key(queue), 'tasks', 'quiet'))
    quiet = tonumber(quiet or 0)
    polled[queue] = quiet > now and quiet <= now + POLL_MS and tasks or ''
  end
  return string.find(polled[queue], ' ' .. task .. ' ', 1, true) ~= nil
end

-- The doorbells that the caller must ring: a flat list of id, task, queue; each job once.
local bells, rung = {}, {}
local function ring(id, task, queue)
  leave_pending(id, queue)
  mark_rung(id, queue)
  if rung[id] or is_polled(queue, task) then return end
  rung[id] = true
  bells[#bells + 1] = id
  bells[#bells + 1] = task
  bells[#bells + 1] = queue
end

-- Ring for a job whose turn has come before: it was returned, has lost its process or has waited for its ordering key.
-- Workers with slots find it where it was in the queue; callers put its doorbell before all others.
local function ring_in_turn(id)
  local task, queue, due = read(id, 'task', 'queue', 'due')
  ring(id, task, queue)
  if redis.call('EXISTS', slots_key(queue)) == 1 then mark_rung(id, queue, math.min(due, now)) end
end

-- The reply of most scripts. Not by unpack(), which fails for more than 8000 values, after all has been written.
local function with_bells(result)
  table.insert(bells, 1, result)
  return bells
end

-- A holder is `<worker>/<process>`. The ids of the jobs that a worker's processes have leased are in `leases:<worker>`, so
-- that they can run elsewhere as soon as one of the processes or the whole worker has died.
local function leases_key(holder) return P .. 'leases:' .. string.gsub(holder, '/[^/]*$', '') end

-- Release a job's ordering key, and ring for the waiting job whose event arrived first.
local function unlock(id, key)
  if key == '' or redis.call('GET', P .. 'lock:' .. key) ~= id then return end
  redis.call('DEL', P .. 'lock:' .. key)
  local first
  repeat
    first = redis.call('ZPOPMIN', P .. 'waiting:' .. key)[1]
    if not first then return end
  until read(first, 'state') == PENDING
  ring_in_turn(first)
  return first
end

-- Counts attempts by outcome and by duration, for inbox/queries.py: `<task>:<outcome>`, `<task>:<at most ms>`.
local ATTEMPT_MS = { 10, 50, 250, 1000, 5000, 30000, 120000 }
local function count_attempt(task, outcome, ms)
  local limit = 'inf'
  for i = #ATTEMPT_MS, 1, -1 do
    if ms <= ATTEMPT_MS[i] then limit = ATTEMPT_MS[i] end
  end
  redis.call('HINCRBY', P .. 'attempts', task .. ':' .. outcome, 1)
  redis.call('HINCRBY', P .. 'attempts', task .. ':' .. limit, 1)
  redis.call('HINCRBY', P .. 'attempts', task .. ':ms', ms)
  if outcome == 'failed' or outcome == 'lost' then count('failed', 1) end
end

local function close_attempt(id, attempt, outcome, reason)
  local task, raw = read(id, 'task', 'attempt:' .. attempt)
  if not raw then return count('unreadable', 1) end
  local entry = cjson.decode(raw)
  entry.ended, entry.outcome, entry.reason = now, outcome, reason
  redis.call('HSET', job_key(id), 'attempt:' .. attempt, cjson.encode(entry))
  redis.call('SREM', leases_key(entry.holder), id)
  count_attempt(task, outcome, now - entry.started)
  return entry.holder
end

local function make_dead(id, from, reason)
  change_state(id, from, DEAD, 'reason', reason, 'finished', now)
  redis.call('ZADD', P .. 'dead', now, id)
end

-- A lease has ended without its holder. With the new token, the old holder's finish is rejected from now on. The limit here
-- applies only to attempts that ended this way; the retry policy limits the others (inbox/retry.py).
local function end_lease(id, reason, due_after)
  local token, queue, key = read(id, 'token', 'queue', 'key')
  redis.call('HINCRBY', job_key(id), 'token', 1)
  close_attempt(id, token, 'lost', reason)
  leave_running(id)
  count('expired', 1)
  local lost = redis.call('HINCRBY', job_key(id), 'lost', 1)
  if lost >= max_tries then
    make_dead(id, RUNNING, 'the worker died or stalled in ' .. lost .. ' attempts')
  else
    local due = due_after(lost)
    change_state(id, RUNNING, PENDING)
    if due > now then
      redis.call('HSET', job_key(id), 'due', due)
      schedule(id, queue, due)
    else
      wait_until(id, queue, now)
    end
  end
  unlock(id, key)
end

local function expire_lease(id)
  end_lease(id, 'the lease expired: the worker stalled', function() return now end)
end

-- Return a job without counting the attempt, to run again at once.
local function give_back(id, token, reason)
  local key, tries = read(id, 'key', 'tries')
  change_state(id, RUNNING, PENDING, 'tries', tries - 1, 'token', token + 1)
  close_attempt(id, token, 'released', reason)
  leave_running(id)
  ring_in_turn(id)
  unlock(id, key)
end

-- True if `token` is still the job's token. A late holder is accepted if its lease has expired but no sweep or other worker
-- has noticed yet.
local function is_held(id, token)
  local state, current = read(id, 'state', 'token')
  return state == RUNNING and current == token
end

-- Create a job unless it exists (as a follow-up of a replayed job does). `message` is the complete Celery message if the
-- broker is this same server, or else empty.
local function create_job(id, task, queue, key, args, delay_ms, message, event)
  if redis.call('EXISTS', job_key(id)) == 1 then return end
  redis.call('HSET', job_key(id), 'task', task, 'queue', queue, 'key', key, 'args', args, 'state', PENDING,
    'tries', 0, 'token', 0, 'due', now + delay_ms, 'created', now,
    'source', event.source, 'event', event.id, 'type', event.type, 'received', event.received)
  redis.call('HINCRBY', event_key(event.source, event.id), 'open', 1)
  redis.call('RPUSH', P .. 'jobs:' .. event.source .. ':' .. event.id, id)
  count(PENDING, 1)
  mark_unfinished(id, queue, now + delay_ms)
  if delay_ms > 0 then return schedule(id, queue, now + delay_ms) end
  if message == '' then return ring(id, task, queue) end
  mark_rung(id, queue)
  if is_polled(queue, task) then return end
  redis.call('LPUSH', queue, message) -- the list that kombu reads; see docs/decisions/0002
end

-- Create `jobs` jobs from flat arguments, seven per job, from arg(first) on.
local function create_jobs(first, jobs, event)
  for i = first, first + 7 * (jobs - 1), 7 do
    create_job(arg(i), arg(i + 1), arg(i + 2), arg(i + 3), arg(i + 4), tonumber(arg(i + 5)), arg(i + 6), event)
  end
end

-- Create an event with its raw bytes and its jobs.
local function create_event(source, id, type, body, deliveries, jobs, first)
  redis.call('HSET', event_key(source, id), 'type', type, 'received', now, 'open', 0, 'deliveries', deliveries)
  redis.call('SET', body_key(source, id), body)
  redis.call('ZADD', P .. 'events', now, source .. ':' .. id)
  create_jobs(first, jobs, { source = source, id = id, type = type, received = now })
end

-- What is kept of a pruned event: 12 bytes of its name's digest, in a set with those that expire in the same week (at
-- RETENTION_DAYS=35). `seen` lists the sets; each expires as a whole.
local function digest(source, id)
  local hex = redis.sha1hex(source .. ':' .. id)
  return (string.gsub(string.sub(hex, 1, 24), '..', function(byte) return string.char(tonumber(byte, 16)) end))
end

local function remember_id(source, id, until_ms)
  local span = math.floor(retention_ms / 5)
  local set = math.ceil(until_ms / span) * span
  redis.call('SADD', P .. 'seen:' .. set, digest(source, id))
  if redis.call('ZSCORE', P .. 'seen', set) then return end
  redis.call('PEXPIREAT', P .. 'seen:' .. set, set)
  redis.call('ZADD', P .. 'seen', set, set)
end

local function is_remembered(source, id)
  local member = digest(source, id)
  for _, set in ipairs(redis.call('ZRANGEBYSCORE', P .. 'seen', now, '+inf')) do
    if redis.call('SISMEMBER', P .. 'seen:' .. set, member) == 1 then return true end
  end
  return false
end

-- No job of this event is open: the event and its jobs expire after the payload's retention time. Its id is remembered for
-- longer, so that a resend is still a duplicate.
local function schedule_pruning(source, id, received)
  local ekey, jkey, expires = event_key(source, id), P .. 'jobs:' .. source .. ':' .. id, now + payload_ms
  remember_id(source, id, math.max(received + retention_ms, expires))
  for _, job in ipairs(redis.call('LRANGE', jkey, 0, -1)) do redis.call('PEXPIREAT', job_key(job), expires) end
  for _, key in ipairs({ ekey, jkey, body_key(source, id) }) do redis.call('PEXPIREAT', key, expires) end
end
