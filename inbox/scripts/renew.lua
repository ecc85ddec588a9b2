-- renew: extend the lease of a holder that is still working.
-- Guards against: a holder that stalled until its lease expired, and would continue while the next holder works.
local id, token, lease_ms = arg(1), arg(2), tonumber(arg(3))
if not is_held(id, token) then return 0 end
redis.call('HSET', job_key(id), 'until', now + lease_ms)
redis.call('ZADD', P .. 'running', now + lease_ms, id)
return 1
