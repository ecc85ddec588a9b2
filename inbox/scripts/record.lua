-- record: an event, its raw bytes and its jobs come into being together, once, with their doorbells rung.
-- Guards against: two deliveries at once, and a death between any two of these steps.
-- It alone refuses to run when memory is full: the others must go on, or a full store could never drain.
local source, id, type, body, secret, counted = arg(1), arg(2), arg(3), arg(4), arg(5), arg(6)
if secret ~= '' then
  redis.call('HINCRBY', P .. 'deliveries', 'verified:' .. source .. ':' .. secret, 1)
  redis.call('HSET', P .. 'deliveries', 'last:' .. source .. ':' .. secret, now)
end
local deliveries = counted == 'accepted' and 1 or 0 -- what we found at its sender was not delivered
local ekey = event_key(source, id)
local here = redis.call('EXISTS', ekey) == 1
if here or remembered(source, id) then
  if here then redis.call('HINCRBY', ekey, 'deliveries', deliveries) end
  count('duplicates', deliveries)
  return { 'known' }
end
redis.call('HSET', ekey, 'type', type, 'received', now, 'open', 0, 'deliveries', deliveries)
if counted == 'missed' then redis.call('HSET', ekey, 'missed', 1) end -- and it stays so, if it arrives after all
redis.call('SET', body_key(source, id), body)
redis.call('ZADD', P .. 'events', now, source .. ':' .. id)
count(counted, 1)
create_all(7, { source = source, id = id, type = type, received = now })
if #ARGV == 11 then
  count('unhandled', 1)
  redis.call('HSET', ekey, 'open', -1) -- it never owed anything
  settle(source, id)
end
return { 'new', unpack(bells) }
