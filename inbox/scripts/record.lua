-- record: events, each with its raw bytes and its jobs, come into being together, once, with their doorbells rung.
-- Guards against: two deliveries at once, and a death between any two of these steps.
-- It alone refuses to run when memory is full: the others must go on, or a full store could never drain.
-- Many that arrive at once are one script, so that the server writes them to its file and replies once for all.
local counted = arg(1)
local deliveries = counted == 'accepted' and 1 or 0 -- what we found at its sender was not delivered

local function proved(source, secret)
  if secret == '' then return end
  redis.call('HINCRBY', P .. 'deliveries', 'verified:' .. source .. ':' .. secret, 1)
  redis.call('HSET', P .. 'deliveries', 'last:' .. source .. ':' .. secret, now)
  redis.call('HDEL', P .. 'deliveries', 'unproven:' .. source)
end

-- The times of an event's last five deliveries, with the name of the secret that proved each.
local function hear(ekey, number, secret)
  redis.call('HSET', ekey, 'heard:' .. number % 5, now .. ':' .. secret)
end

local function tell(what, source)
  if deliveries == 1 then redis.call('HINCRBY', P .. 'deliveries', what .. ':' .. source, 1) end
end

local function known(source, id, secret)
  local ekey = event_key(source, id)
  local here = redis.call('EXISTS', ekey) == 1
  if not here and not remembered(source, id) then return false end
  if here and deliveries == 1 then hear(ekey, redis.call('HINCRBY', ekey, 'deliveries', 1), secret) end
  count('duplicates', deliveries)
  tell('duplicate', source)
  return true
end

local function record(source, id, type, body, secret, jobs, first)
  if known(source, id, secret) then return { 'known' } end
  local ekey = event_key(source, id)
  bells, told = {}, {}
  begin(source, id, type, body, deliveries, jobs, first)
  if counted == 'missed' then redis.call('HSET', ekey, 'missed', 1) end -- and it stays so, if it arrives after all
  if deliveries == 1 then hear(ekey, 1, secret) end
  count(counted, 1)
  tell('accepted', source)
  if jobs == 0 then
    count('unhandled', 1)
    redis.call('HSET', ekey, 'open', -1) -- it never owed anything
    settle(source, id, now)
  end
  return { 'new', unpack(bells) }
end

-- One that fails, as over a key of ours that holds something else, spoils no other.
local function outcome(...)
  local done, answer = pcall(record, ...)
  return done and answer or { 'refused' }
end

local outcomes, at = {}, 2
while arg(at) do
  local source, secret, jobs = arg(at), arg(at + 4), tonumber(arg(at + 5))
  proved(source, secret)
  outcomes[#outcomes + 1] = outcome(source, arg(at + 1), arg(at + 2), arg(at + 3), secret, jobs, at + 6)
  at = at + 6 + 7 * jobs
end
return outcomes
