-- find: what matches, the newest first, from a place in the list on; as JSON. It changes nothing.
-- Guards against a search that holds up everybody else: it looks through `budget` entries at the most, and then says
-- where to go on. It reads the lists that are there anyway (events by arrival, dead letters by death): no index more.
-- Arguments: list, place, budget, most; then what to match: source, type, state, text, customer, since, until; '' is any.
local list, place, budget, most = arg(1), arg(2), tonumber(arg(3)), tonumber(arg(4))
local source, kind, state, text, customer = arg(5), arg(6), arg(7), arg(8), string.lower(arg(9))
local since, till = tonumber(arg(10)) or -1, arg(11)
local prefix = string.match(kind, '^(.*)%*$')

-- `invoice.*` is every type that begins so.
local function of_kind(found)
  return kind == '' or found == kind or (prefix and string.sub(found, 1, #prefix) == prefix)
end

local function says(words, wanted)
  return wanted == '' or string.find(string.lower(words), string.lower(wanted), 1, true) ~= nil
end

-- An ordering key ends in the customer's own id: stripe:cus_1, stripe:acct_1/cus_1, task:t1.
local function of_customer(key)
  local rest = #key - #customer
  return customer == '' or (rest > 0 and string.sub(string.lower(key), rest + 1) == customer
    and string.find(string.sub(key, rest, rest), '[:/]') ~= nil)
end

local function letter(id)
  local from, event, type, task, reason, key, died = read(id, 'source', 'event', 'type', 'task', 'reason', 'key', 'finished')
  if not from or (source ~= '' and from ~= source) or not of_kind(type) or not of_customer(key) then return end
  if not says(id .. ' ' .. (reason or ''), text) then return end
  return { id = id, source = from, event = event, type = type, task = task, reason = reason, died = died }
end

-- Where an event stands, by its jobs; why, if it is dead; and whether the customer is one that they are about.
local function standing(from, id, open, discarded)
  local ours = customer == ''
  local done = (tonumber(discarded) or 0) > 0 and 'discarded' or 'succeeded'
  local worst, why = open == '0' and done or open == '-1' and 'unhandled' or 'open', nil
  if worst ~= 'open' and ours then return worst, why, ours end
  local jobs = redis.call('LRANGE', P .. 'jobs:' .. from .. ':' .. id, 0, -1)
  for _, job in ipairs(jobs) do
    local stands, reason, key = read(job, 'state', 'reason', 'key')
    if stands == 'dead' then worst, why = 'dead', reason end
    ours = ours or (key and of_customer(key))
  end
  return worst, why, ours
end

local function event(name)
  local from, id = string.match(name, '^([^:]*):(.*)$')
  if (source ~= '' and from ~= source) or not says(id, text) then return end
  local type, open, deliveries, received, discarded, missed =
    unpack(redis.call('HMGET', event_key(from, id), 'type', 'open', 'deliveries', 'received', 'discarded', 'missed'))
  if state == 'missed' and not missed then return end
  if not type or not of_kind(type) then return end
  local stands, why, ours = standing(from, id, open, discarded)
  if not ours or (state ~= '' and state ~= 'missed' and stands ~= state) then return end
  return { source = from, id = id, type = type, received = received, deliveries = deliveries,
    state = stands, reason = why }
end

-- A place is `score:member`. That entry may be gone, or, a job that died once more, stand elsewhere now.
local from_score, from_member = string.match(place, '^(%d+):(.*)$')
local rank = 0
if from_score and redis.call('ZSCORE', P .. list, from_member) == from_score then
  rank = redis.call('ZREVRANK', P .. list, from_member) + 1
elseif from_score then
  rank = redis.call('ZCOUNT', P .. list, '(' .. from_score, '+inf')
elseif till ~= '' then
  rank = redis.call('ZCOUNT', P .. list, '(' .. till, '+inf')
end

local function passed(score, member)
  return score == from_score and member >= from_member
end

local match = list == 'dead' and letter or event
local found, looked, last = {}, 0, ''
while true do
  local chunk = redis.call('ZREVRANGE', P .. list, rank, rank + 99, 'WITHSCORES')
  rank = rank + 100
  for i = 1, #chunk, 2 do
    local member, score = chunk[i], chunk[i + 1]
    if tonumber(score) < since then return { looked, '', unpack(found) } end
    if not passed(score, member) then
      looked = looked + 1
      local row = match(member)
      if row then found[#found + 1] = cjson.encode(row) end
      if #found == most or looked == budget then return { looked, score .. ':' .. member, unpack(found) } end
    end
  end
  if #chunk < 200 then return { looked, '', unpack(found) } end
end
