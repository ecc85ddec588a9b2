-- sweep: find the jobs that are due, whose lease has expired or whose doorbell no worker answered. Returns doorbells to ring.
-- Guards against: lost doorbells, dead workers, a broker that lost its data. Any number of simultaneous sweeps is safe: each
-- job that one sweep returns gets a new time in the same step. The cost depends on the jobs that are due, not on all jobs.
-- Arguments: limit, then pairs of queue and room. The doorbells of a queue without room are still in the broker, so a job is
-- rung again only if newer jobs have overtaken it by more than ring_again_ms: then its doorbell was lost.
local limit = tonumber(arg(1))
local CLOCK_STEP_MS = 60000

-- Do it for the members of a set up to a score. A member that is no job leaves the set; one that cannot be read is looked at
-- again after a minute. Returns their number.
local function each_until(set, until_ms, max_count, handle)
  local found = redis.call('ZRANGEBYSCORE', P .. set, '-inf', until_ms, 'LIMIT', 0, max_count)
  for _, id in ipairs(found) do
    if redis.call('EXISTS', job_key(id)) == 0 then
      redis.call('ZREM', P .. set, id)
      count('unreadable', 1)
    elseif not handle_safely(handle, id) then
      redis.call('ZADD', P .. set, now + CLOCK_STEP_MS, id)
    end
  end
  return #found
end

-- Which of a job's task and queue the version of no running worker knows, as its workers announce (inbox/worker_registry.py):
-- as after a rollback, or when it was removed. nil if both are known, or if only earlier versions run, which do not announce.
local KNOWN_MS = 60000
local known = {}
local function is_known(name)
  if known[name] == nil then
    local at = redis.call('HGET', P .. 'known', name)
    known[name] = at ~= false and math.abs(now - at) <= KNOWN_MS
  end
  return known[name]
end
local announced = redis.call('EXISTS', P .. 'known') == 1
local function unknown(task, queue)
  if not announced then return end
  return not is_known('queue ' .. queue) and 'queue ' .. queue or not is_known('task ' .. task) and 'task ' .. task or nil
end

-- A job that perhaps no worker can run. It is rung once a minute, for a worker of an earlier version may know it, and a lease
-- starts the count again. After an hour of it, it is a dead letter: a person decides.
local MAX_UNANSWERED = 60
local function ring_in_vain(id, task, queue, what)
  local token, before = read(id, 'token', 'unanswered')
  local rings = tonumber(string.match(before or '', '^' .. token .. ':(%d+)$') or 0)
  if rings == MAX_UNANSWERED then
    leave_pending(id, queue)
    return make_dead(id, PENDING, 'no running worker knows the ' .. what)
  end
  redis.call('HSET', job_key(id), 'unanswered', token .. ':' .. rings + 1)
  ring(id, task, queue)
  redis.call('ZADD', P .. 'rung:' .. queue, now + CLOCK_STEP_MS, id)
end

local function ring_unanswered(queue, until_ms, max_count)
  each_until('rung:' .. queue, until_ms, max_count, function(id)
    local task = read(id, 'task')
    if is_polled(queue, task) then return end
    local what = unknown(task, queue)
    if what then return ring_in_vain(id, task, queue, what) end
    ring(id, task, queue)
  end)
end

-- A time that is even further ahead comes from a clock that has been set back since.
local function correct_times(queue)
  local rung_set = P .. 'rung:' .. queue
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', rung_set, now + ring_again_ms + CLOCK_STEP_MS, '+inf', 'LIMIT', 0, limit)) do
    redis.call('ZADD', rung_set, now + ring_again_ms, id)
  end
end

-- If workers with slots poll this queue and have stopped, perhaps because they died, jobs that arrived meanwhile have no
-- doorbell. A few are enough, for one wakes a worker that takes all.
local MAX_WAKING = 10
local function ring_due(queue, room)
  if redis.call('EXISTS', slots_key(queue)) == 0 then return ring_unanswered(queue, now, room) end
  ring_unanswered(queue, now + ring_again_ms - POLL_MS, math.min(room, MAX_WAKING))
end

-- Remove expired events from the list: a limited number in each sweep, from where the last sweep stopped. So a sweep stays
-- short even if many events expire together, or many dead letters stay. The first one that is too young ends it.
local function prune(max_count)
  local position = tonumber(redis.call('GET', P .. 'pruned') or 0)
  local found = redis.call('ZRANGE', P .. 'events', position, position + max_count - 1, 'WITHSCORES')
  local at_end = #found < 2 * max_count
  for i = 1, #found, 2 do
    if tonumber(found[i + 1]) > now - payload_ms then
      at_end = true
      break
    end
    if redis.call('EXISTS', P .. 'event:' .. found[i]) == 1 then
      position = position + 1
    else
      redis.call('ZREM', P .. 'events', found[i])
    end
  end
  redis.call('SET', P .. 'pruned', at_end and 0 or position)
end

-- A job whose time in one of the sets has come. Beside earlier versions, it may have entered another one without leaving this.
local function handle_due(set, id)
  local state, until_ms = read(id, 'state', 'until')
  redis.call('ZREM', P .. set, id)
  if state == RUNNING and tonumber(until_ms) > now then return redis.call('ZADD', P .. 'running', until_ms, id) end
  if state == RUNNING then expire_lease(id) end
  local left, task, queue, due = read(id, 'state', 'task', 'queue', 'due')
  if left ~= PENDING then return end
  if is_early(id, due) then return wait_until(id, queue, due) end
  ring(id, task, queue)
end

local function handle_all_due(set, max_count)
  return each_until(set, now, max_count, function(id) handle_due(set, id) end)
end

-- Each queue has its share of the limit, so that none waits for another's retries. What some leave is for the others.
local function handle_due_of_each(queues)
  local left, open = limit, queues
  while left > 0 and #open > 0 do
    local share, more = math.ceil(left / #open), {}
    for _, queue in ipairs(open) do
      local found = handle_all_due('later:' .. queue, math.min(share, left))
      left = left - found
      if found == share then more[#more + 1] = queue end
    end
    open = more
  end
end

-- Jobs that wait for a key whose holder does not run, or that an earlier version has leased. There should be none, but
-- nothing else would ever find them.
local function check_blocked(queue)
  local function check(id)
    local state, key = read(id, 'state', 'key')
    local holder = state == PENDING and redis.call('GET', P .. 'lock:' .. key)
    if state ~= PENDING then
      redis.call('ZREM', P .. 'blocked:' .. queue, id)
    elseif holder and read(holder, 'state') ~= RUNNING then
      unlock(holder, key)
    end
  end
  for _, id in ipairs(redis.call('ZRANDMEMBER', P .. 'blocked:' .. queue, 5)) do handle_safely(check, id) end
end

-- The oldest job of a queue is what the alert of the backlog goes by. One that has ended stays there if an earlier version,
-- which did not keep this set, ended it.
local function check_oldest(queue)
  for _, id in ipairs(redis.call('ZRANGE', P .. 'owed:' .. queue, 0, 2)) do
    local ok, state = pcall(read, id, 'state')
    if not (ok and UNFINISHED[state]) then redis.call('ZREM', P .. 'owed:' .. queue, id) end
  end
end

handle_all_due('running', limit)
handle_all_due('later', limit)
local queues = redis.call('SMEMBERS', P .. 'queues')
handle_due_of_each(queues)
for _, queue in ipairs(queues) do
  check_blocked(queue)
  check_oldest(queue)
  correct_times(queue)
end
local ROOM_OF_UNKNOWN = 10 -- in a queue that this worker's version does not know, and whose length it has not asked for
local rooms = {}
for i = 2, #ARGV - 5, 2 do rooms[arg(i)] = tonumber(arg(i + 1)) end
for _, queue in ipairs(next(rooms) and queues or {}) do
  ring_unanswered(queue, newest_leased_due(queue), limit)
  ring_due(queue, rooms[queue] or ROOM_OF_UNKNOWN)
end
redis.call('ZREMRANGEBYSCORE', P .. 'scheduled', '-inf', now)
redis.call('ZREMRANGEBYSCORE', P .. 'seen', '-inf', '(' .. now)
prune(500)

-- The earliest time at which a job that is still unfinished was first due.
local function oldest_unfinished()
  local since = now
  for _, queue in ipairs(queues) do
    since = math.min(since, redis.call('ZRANGE', P .. 'owed:' .. queue, 0, 0, 'WITHSCORES')[2] or now)
  end
  return since
end

-- One sample a minute, kept for a day, for plots. (pcall: if the clock went back, there is no sample and no error.)
local swept = tonumber(redis.call('GET', P .. 'swept') or 0)
if math.floor(swept / 60000) ~= math.floor(now / 60000) then
  local pending, running, succeeded, dead, failed, rejected, missed = unpack(redis.call('HMGET', P .. 'counts',
    PENDING, RUNNING, SUCCEEDED, DEAD, 'failed', 'rejected', 'missed'))
  redis.pcall('XADD', P .. 'samples', 'MAXLEN', '~', 1440, now .. '-1',
    'owed', (pending or 0) + (running or 0), 'done', succeeded or 0, 'dead', dead or 0, 'failed', failed or 0,
    'rejected', rejected or 0, 'missed', missed or 0, 'age', now - oldest_unfinished())
end
redis.call('SET', P .. 'swept', now)
count('sweeps', 1)
return bells
