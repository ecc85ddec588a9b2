-- sweep: find the jobs that are due, whose lease has expired or whose doorbell no worker answered. Returns doorbells to ring.
-- Guards against: lost doorbells, dead workers, a broker that lost its data. Any number of simultaneous sweeps is safe: each
-- job that one sweep returns gets a new time in the same step. The cost depends on the jobs that are due, not on all jobs.
-- Arguments: limit, then pairs of queue and room. The doorbells of a queue without room are still in the broker, so a job is
-- rung again only if newer jobs have overtaken it by more than ring_again_ms: then its doorbell was lost.
local limit = tonumber(arg(1))

local function ring_unanswered(queue, until_ms, max_count)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'rung:' .. queue, '-inf', until_ms, 'LIMIT', 0, max_count)) do
    ring(id, read(id, 'task'), queue)
  end
end

-- Remove expired events from the list: a limited number in each sweep, from where the last sweep stopped. So a sweep stays
-- short even if many events expire together, or many dead letters stay.
local function prune(max_count)
  local position = tonumber(redis.call('GET', P .. 'pruned') or 0)
  local found = redis.call('ZRANGE', P .. 'events', position, position + max_count - 1, 'WITHSCORES')
  local at_end = #found < 2 * max_count
  for i = 1, #found, 2 do
    at_end = at_end or tonumber(found[i + 1]) > now - payload_ms
    if redis.call('EXISTS', P .. 'event:' .. found[i]) == 1 then
      position = position + 1
    else
      redis.call('ZREM', P .. 'events', found[i])
    end
  end
  redis.call('SET', P .. 'pruned', at_end and 0 or position)
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'later', '-inf', now, 'LIMIT', 0, limit)) do
  if read(id, 'state') == RUNNING then expire_lease(id) end
  local state, task, queue = read(id, 'state', 'task', 'queue')
  if state == PENDING then ring(id, task, queue) end
end
for i = 2, #ARGV - 5, 2 do
  local queue, room = arg(i), tonumber(arg(i + 1))
  ring_unanswered(queue, newest_leased_due(queue), limit)
  ring_unanswered(queue, now, room)
end
redis.call('ZREMRANGEBYSCORE', P .. 'scheduled', '-inf', now)
redis.call('ZREMRANGEBYSCORE', P .. 'seen', '-inf', '(' .. now)
prune(500)

-- The earliest time at which a job that is still unfinished was first due.
local function oldest_unfinished()
  local since = now
  for _, queue in ipairs(redis.call('SMEMBERS', P .. 'queues')) do
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
