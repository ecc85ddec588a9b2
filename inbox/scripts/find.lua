-- find: the matching events or jobs of one sorted set, from a cursor on, as JSON. Read only.
-- Guards against a search that blocks all other clients: it scans at most `budget` entries and then returns a cursor.
-- It reads sets that exist for other purposes (events by arrival, dead letters by death, unfinished jobs by time): no index.
-- Arguments: the set; the stored code of the jobs to find, or '' for events; whether their due time must be `past` or
-- `future` ('' is any); cursor, budget, limit; then the filter: source, type, state, text, customer, since, until ('' is any).
local list, code, when, cursor, budget, limit = arg(1), arg(2), arg(3), arg(4), tonumber(arg(5)), tonumber(arg(6))
local source, type_filter, state, text, customer = arg(7), arg(8), arg(9), arg(10), string.lower(arg(11))
local since, until_ms = tonumber(arg(12)) or -1, arg(13)
local type_prefix = string.match(type_filter, '^(.*)%*$')
local newest_first = list == 'events' or list == 'dead'
local MAX_LEASE_MS = 86400000 -- see LEASE_SECONDS

-- `invoice.*` matches every type with that prefix.
local function matches_type(found)
  return type_filter == '' or found == type_filter
    or (type_prefix and string.sub(found, 1, #type_prefix) == type_prefix)
end

local function contains(haystack, needle)
  return needle == '' or string.find(string.lower(haystack), string.lower(needle), 1, true) ~= nil
end

-- An ordering key ends in the customer's id: stripe:cus_1, stripe:acct_1/cus_1, task:t1.
local function matches_customer(key)
  local rest = #key - #customer
  return customer == '' or (rest > 0 and string.sub(string.lower(key), rest + 1) == customer
    and string.find(string.sub(key, rest, rest), '[:/]') ~= nil)
end

-- The job's row if it matches. `since` and `until` limit the score of jobs listed newest first, and the due time of others.
local function job_row(id)
  local from, event, type, task, reason, key, died, stored, due =
    read(id, 'source', 'event', 'type', 'task', 'reason', 'key', 'finished', 'state', 'due')
  if stored ~= code or (when ~= '' and (tonumber(due) > now) ~= (when == 'future')) then return end
  if not newest_first and (tonumber(due) < since or (until_ms ~= '' and tonumber(due) > tonumber(until_ms))) then return end
  if (source ~= '' and from ~= source) or not matches_type(type) or not matches_customer(key) then return end
  if not contains(id .. ' ' .. (reason or ''), text) then return end
  return { id = id, source = from, event = event, type = type, task = task, reason = reason, died = died, due = due }
end

-- The state of an event, from its jobs; the reason of a dead one; and whether a job matches the customer.
local function event_state(from, id, open, discarded)
  local matches = customer == ''
  local done = (tonumber(discarded) or 0) > 0 and DISCARDED or SUCCEEDED
  local worst, why = open == '0' and done or open == '-1' and 'unhandled' or 'open', nil
  if worst ~= 'open' and matches then return worst, why, matches end
  for _, job in ipairs(redis.call('LRANGE', P .. 'jobs:' .. from .. ':' .. id, 0, -1)) do
    local stored, reason, key = read(job, 'state', 'reason', 'key')
    if stored == DEAD then worst, why = DEAD, reason end
    matches = matches or (key and matches_customer(key))
  end
  return worst, why, matches
end

local function event_row(name)
  local from, id = string.match(name, '^([^:]*):(.*)$')
  if (source ~= '' and from ~= source) or not contains(id, text) then return end
  local type, open, deliveries, received, discarded, missed =
    unpack(redis.call('HMGET', event_key(from, id), 'type', 'open', 'deliveries', 'received', 'discarded', 'missed'))
  if state == 'missed' and not missed then return end
  if not type or not matches_type(type) then return end
  local found, why, matches = event_state(from, id, open, discarded)
  if not matches or (state ~= '' and state ~= 'missed' and found ~= state) then return end
  return { source = from, id = id, type = type, received = received, deliveries = deliveries,
    state = found, reason = why }
end

-- The rows of one member of the set: of the event; of the job; or, when jobs are searched by their events, of its jobs.
local function rows_of(member)
  if code == '' then return { event_row(member) } end
  if list ~= 'events' then return { job_row(member) } end
  local rows = {}
  for _, job in ipairs(redis.call('LRANGE', P .. 'jobs:' .. member, 0, -1)) do rows[#rows + 1] = job_row(job) end
  return rows
end

-- A cursor is `score:member`. That entry may since have left the set or changed its score (a job that died again).
local from_score, from_member = string.match(cursor, '^(%d+):(.*)$')
local function first_rank()
  if from_score and redis.call('ZSCORE', P .. list, from_member) == from_score then
    return redis.call(newest_first and 'ZREVRANK' or 'ZRANK', P .. list, from_member) + 1
  end
  if newest_first then
    local before = from_score or until_ms
    return before == '' and 0 or redis.call('ZCOUNT', P .. list, '(' .. before, '+inf')
  end
  if from_score then return redis.call('ZCOUNT', P .. list, '-inf', '(' .. from_score) end
  return list == 'scheduled' and redis.call('ZCOUNT', P .. list, '-inf', now) or 0
end

local function is_before_cursor(score, member)
  if score ~= from_score then return false end
  if newest_first then return member >= from_member end
  return member <= from_member
end

-- The rest of the set are scheduled jobs: in that of earlier versions, which has leases too, those behind the latest
-- possible end of a lease.
local function is_past_end(score)
  if newest_first then return tonumber(score) < since end
  if list == 'later' then return tonumber(score) > now + MAX_LEASE_MS end
  return string.sub(list, 1, 6) == 'later:' and tonumber(score) > now
end

local found, scanned, rank = {}, 0, first_rank()
while true do
  local chunk = redis.call(newest_first and 'ZREVRANGE' or 'ZRANGE', P .. list, rank, rank + 99, 'WITHSCORES')
  rank = rank + 100
  for i = 1, #chunk, 2 do
    local member, score = chunk[i], chunk[i + 1]
    if is_past_end(score) then return { scanned, '', unpack(found) } end
    if not is_before_cursor(score, member) then
      scanned = scanned + 1
      for _, row in ipairs(rows_of(member)) do found[#found + 1] = cjson.encode(row) end
      if #found >= limit or scanned == budget then return { scanned, score .. ':' .. member, unpack(found) } end
    end
  end
  if #chunk < 200 then return { scanned, '', unpack(found) } end
end
