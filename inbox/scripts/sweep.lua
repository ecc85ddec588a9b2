-- sweep: find what is due, whose lease ran out, or whose doorbell nobody heard, and say whom to ring.
-- Guards against: lost doorbells, dead workers, a wiped broker. Any number of sweepers at once is safe: whatever one
-- has taken is dated again in the same step. It costs what is due, not what is stored.
-- Arguments: limit, then queue and room pairs. A queue without room still holds its doorbells, so only those are rung again
-- that others have overtaken by more than the time after which we ring again: they were lost.
local limit = tonumber(arg(1))

local function ring_unanswered(queue, until_ms, most)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'rung:' .. queue, '-inf', until_ms, 'LIMIT', 0, most)) do
    ring(id, read(id, 'task'), queue)
  end
end

-- Events that have aged away leave the list: a few at each look, from where the last one stopped, so that neither the
-- many that go together nor the dead letters that stay make a look long.
local function prune(most)
  local place = tonumber(redis.call('GET', P .. 'pruned') or 0)
  local found = redis.call('ZRANGE', P .. 'events', place, place + most - 1, 'WITHSCORES')
  local over = #found < 2 * most
  for i = 1, #found, 2 do
    over = over or tonumber(found[i + 1]) > now - payload_ms
    if redis.call('EXISTS', P .. 'event:' .. found[i]) == 1 then
      place = place + 1
    else
      redis.call('ZREM', P .. 'events', found[i])
    end
  end
  redis.call('SET', P .. 'pruned', over and 0 or place)
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'later', '-inf', now, 'LIMIT', 0, limit)) do
  if read(id, 'state') == RUNNING then expire(id) end
  local state, task, queue = read(id, 'state', 'task', 'queue')
  if state == PENDING then ring(id, task, queue) end
end
for i = 2, #ARGV - 5, 2 do
  local queue, room = arg(i), tonumber(arg(i + 1))
  ring_unanswered(queue, served(queue), limit)
  ring_unanswered(queue, now, room)
end
redis.call('ZREMRANGEBYSCORE', P .. 'scheduled', '-inf', now)
redis.call('ZREMRANGEBYSCORE', P .. 'seen', '-inf', '(' .. now)
prune(500)
-- Since when the oldest of what is owed now is.
local function oldest()
  local since = now
  for _, queue in ipairs(redis.call('SMEMBERS', P .. 'queues')) do
    since = math.min(since, redis.call('ZRANGE', P .. 'owed:' .. queue, 0, 0, 'WITHSCORES')[2] or now)
  end
  return since
end

-- Once a minute, how things stand: a day of it, for plots. (pcall: a clock that went back makes no sample, and no error.)
local swept = tonumber(redis.call('GET', P .. 'swept') or 0)
if math.floor(swept / 60000) ~= math.floor(now / 60000) then
  local ready, leased, done, dead, failed, rejected, missed = unpack(redis.call('HMGET', P .. 'counts',
    PENDING, RUNNING, SUCCEEDED, DEAD, 'failed', 'rejected', 'missed'))
  redis.pcall('XADD', P .. 'samples', 'MAXLEN', '~', 1440, now .. '-1',
    'owed', (ready or 0) + (leased or 0), 'done', done or 0, 'dead', dead or 0, 'failed', failed or 0,
    'rejected', rejected or 0, 'missed', missed or 0, 'age', now - oldest())
end
redis.call('SET', P .. 'swept', now)
count('sweeps', 1)
return bells
