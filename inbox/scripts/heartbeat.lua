-- heartbeat: a worker is alive. Ends the leases of workers whose heartbeats are missing. Returns a list of this worker's
-- processes that hold leases, and a list of doorbells to ring.
-- Guards against: a worker, container or machine that dies as a whole. Its jobs need not wait for their leases to expire.
-- A worker that was only frozen or disconnected is fenced off, as after the end of a lease, and is back with its next heartbeat.
local worker, timeout_ms = arg(1), tonumber(arg(2))

local function start_again(workers)
  for _, other in ipairs(workers) do redis.call('ZADD', P .. 'workers', now, other) end
end

-- If this worker's own last heartbeat is old, the store was not available or its clock was set: others are not late either.
local last = tonumber(redis.call('ZSCORE', P .. 'workers', worker))
if last and now - last > timeout_ms / 2 then start_again(redis.call('ZRANGE', P .. 'workers', 0, -1)) end
start_again(redis.call('ZRANGEBYSCORE', P .. 'workers', '(' .. now, '+inf')) -- the clock was set back
redis.call('ZADD', P .. 'workers', now, worker)

for _, dead in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', now - timeout_ms)) do
  end_leases(dead)
  redis.call('ZREM', P .. 'workers', dead)
end

local holders = {}
for _, id in ipairs(redis.call('SMEMBERS', P .. 'leases:' .. worker)) do
  handle_safely(function() holders[#holders + 1] = (running_attempt(id) or {}).holder end)
end
return { holders, bells }
