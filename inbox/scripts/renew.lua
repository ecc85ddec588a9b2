-- renew: the holder is alive and still at work.
-- Guards against: a holder that slept over its lease and would go on beside its successor.
local id, token, lease_ms = arg(1), arg(2), tonumber(arg(3))
if not held(id, token) then return 0 end
redis.call('HSET', job_key(id), 'until', now + lease_ms)
redis.call('ZADD', P .. 'later', now + lease_ms, id)
return 1
