-- record: create events, each with its raw bytes, its jobs and their doorbells, once, in one step.
-- Guards against: two simultaneous deliveries of one event, and a crash between any two of these steps.
-- Of all scripts, only this one refuses to run when memory is full: the others must continue, or a full store could never
-- drain. Events that arrive at the same time share one run, so that the server writes to its file and replies once for all.
local counted = arg(1)
local deliveries = counted == 'accepted' and 1 or 0 -- an event found by a reconcile was not delivered

local function count_verified(source, secret)
  if secret == '' then return end
  redis.call('HINCRBY', P .. 'deliveries', 'verified:' .. source .. ':' .. secret, 1)
  redis.call('HSET', P .. 'deliveries', 'last:' .. source .. ':' .. secret, now)
  redis.call('HDEL', P .. 'deliveries', 'unproven:' .. source)
end

-- The times of an event's last five deliveries, with the name of the secret that verified each.
local function save_delivery_time(ekey, number, secret)
  redis.call('HSET', ekey, 'heard:' .. number % 5, now .. ':' .. secret)
end

local function count_delivery(result, source)
  if deliveries == 1 then redis.call('HINCRBY', P .. 'deliveries', result .. ':' .. source, 1) end
end

-- Whether the event is recorded or remembered. If it is recorded, the delivery is noted there.
local function is_known(source, id, secret)
  local ekey = event_key(source, id)
  local stored = redis.call('EXISTS', ekey) == 1
  if stored and deliveries == 1 then save_delivery_time(ekey, redis.call('HINCRBY', ekey, 'deliveries', 1), secret) end
  return stored or is_remembered(source, id)
end

local function count_duplicate(source)
  count('duplicates', deliveries)
  count_delivery('duplicate', source)
end

-- Where the id is not part of what is signed, anyone who has seen a delivery can send it again under another id.
-- The space keeps what is remembered apart from ids.
local function is_signed_again(source, signed)
  return signed ~= '' and is_remembered(source, 'signed ' .. signed)
end

local function remember_signed(source, signed)
  if signed ~= '' then remember_id(source, 'signed ' .. signed, now + retention_ms) end
end

local function record(source, id, type, body, secret, signed, jobs, first)
  if is_known(source, id, secret) or is_signed_again(source, signed) then
    count_duplicate(source)
    return { 'known' }
  end
  local ekey = event_key(source, id)
  bells, rung = {}, {}
  create_event(source, id, type, body, deliveries, jobs, first)
  remember_signed(source, signed) -- not before: if the event cannot be created, its next delivery is no duplicate
  if counted == 'missed' then redis.call('HSET', ekey, 'missed', 1) end -- and stays so if it is delivered later
  if deliveries == 1 then save_delivery_time(ekey, 1, secret) end
  count(counted, 1)
  count_delivery('accepted', source)
  if jobs == 0 then
    count('unhandled', 1)
    redis.call('HSET', ekey, 'open', -1) -- it has never had a job
    schedule_pruning(source, id, now)
  end
  return with_bells('new')
end

-- An event that fails, for example because its key holds another type of value, does not stop the others.
local function outcome(...)
  local ok, result = pcall(record, ...)
  return ok and result or { 'refused' }
end

local outcomes, first = {}, 2
while arg(first) do
  local source, secret, jobs = arg(first), arg(first + 4), tonumber(arg(first + 6))
  count_verified(source, secret)
  outcomes[#outcomes + 1] =
    outcome(source, arg(first + 1), arg(first + 2), arg(first + 3), secret, arg(first + 5), jobs, first + 7)
  first = first + 7 + 7 * jobs
end
return outcomes
