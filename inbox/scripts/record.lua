-- record: an event, its raw bytes and its jobs come into being together, once, with their doorbells rung.
-- Guards against: two deliveries at once, and a death between any two of these steps.
-- It alone refuses to run when memory is full: the others must go on, or a full store could never drain.
local source, id, type, body, secret, counted = arg(1), arg(2), arg(3), arg(4), arg(5), arg(6)
if secret ~= '' then
  redis.call('HINCRBY', P .. 'deliveries', 'verified:' .. source .. ':' .. secret, 1)
  redis.call('HSET', P .. 'deliveries', 'last:' .. source .. ':' .. secret, now)
  redis.call('HDEL', P .. 'deliveries', 'unproven:' .. source)
end
local deliveries = counted == 'accepted' and 1 or 0 -- what we found at its sender was not delivered
local ekey = event_key(source, id)
-- The times of an event's last five deliveries, with the name of the secret that proved each.
local function hear(number)
  redis.call('HSET', ekey, 'heard:' .. number % 5, now .. ':' .. secret)
end

local function tell(what)
  if deliveries == 1 then redis.call('HINCRBY', P .. 'deliveries', what .. ':' .. source, 1) end
end

local here = redis.call('EXISTS', ekey) == 1
if here or remembered(source, id) then
  if here and deliveries == 1 then hear(redis.call('HINCRBY', ekey, 'deliveries', 1)) end
  count('duplicates', deliveries)
  tell('duplicate')
  return { 'known' }
end
begin(source, id, type, body, deliveries, 7)
if deliveries == 1 then hear(1) end
count(counted, 1)
tell('accepted')
if #ARGV == 11 then
  count('unhandled', 1)
  redis.call('HSET', ekey, 'open', -1) -- it never owed anything
  settle(source, id)
end
return { 'new', unpack(bells) }
