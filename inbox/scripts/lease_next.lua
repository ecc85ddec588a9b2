-- lease_next: lease up to `number` waiting jobs, from the queues in turn, for a process that runs many jobs at once.
-- Guards against: a Celery message for each of these jobs; a queue that starves others; a second lease for a request that
-- is sent twice (the same nonce gets the same leases).
-- The caller either polls: then it calls again within POLL_MS, and until then no doorbell is rung for the tasks it runs. Or
-- it does not: then the next job is rung. Deciding this in the step that finds no job leaves no gap between the two.
-- A caller that runs a suspect takes no other (see deaths.lua).
-- Returns a doorbell to ring if jobs are left over, once a second for all callers; 'left' if there are such jobs; the leases.
local holder, lease_ms, nonce, number = arg(1), tonumber(arg(2)), arg(3), tonumber(arg(4))
local polls, same_server, takes_suspect = arg(5) == '1', arg(6) == '1', arg(7) == '1'
local pairs_end = 8 + 2 * tonumber(arg(8))
local MAX_PASSED_OVER = 200 -- jobs of each queue that this caller cannot run
local MAX_STALE = 100 -- doorbells to remove from the broker's list, beside those of the leased jobs
local REGISTERED_MS = 60000

local queues = {}
for i = 9, pairs_end, 2 do
  queues[#queues + 1] = { name = arg(i), tasks = arg(i + 1), ids = {}, at = 1, passed = 0, leased = 0 }
end

local function runs(queue, task) return string.find(queue.tasks, ' ' .. task .. ' ', 1, true) ~= nil end

-- The next job of the queue that the caller can run. Jobs that were leased or must wait have left the set meanwhile.
local function next_job(queue)
  while queue.passed <= MAX_PASSED_OVER do
    local id = queue.ids[queue.at]
    if not id then
      queue.ids = redis.call('ZRANGE', P .. 'rung:' .. queue.name, queue.passed, queue.passed + number)
      queue.at, id = 1, queue.ids[1]
      if not id then return end
    end
    queue.at = queue.at + 1
    local ok, task = pcall(read, id, 'task')
    if ok and task and runs(queue, task) and (takes_suspect or not is_suspect(id)) then return id, task end
    queue.passed = queue.passed + 1
  end
end

local leases, ids, leased = {}, {}, {}
local function lease(id, queue)
  if leased[id] or (not takes_suspect and is_suspect(id)) then return end
  local ok, reply = pcall(lease_job, id, holder, lease_ms, nonce, nil)
  local result = ok and reply[1] or 'unreadable'
  if result ~= 'leased' then
    if queue and result ~= 'waiting' then queue.passed = queue.passed + 1 end
    return
  end
  if reply[#reply] == 1 then takes_suspect = false end
  leases[#leases + 1], ids[#ids + 1], leased[id] = reply, id, true
  if queue then queue.leased = queue.leased + 1 end
end

-- Jobs whose doorbells have just woken the caller come last, or they would overtake others. Usually they have had their
-- turn; but they may be behind many jobs that the caller cannot run.
local function lease_announced()
  for i = pairs_end + 1, #ARGV - 5 do
    if #leases < number then lease(arg(i)) end
  end
end

local function lease_in_turn()
  local open = queues
  while #open > 0 and #leases < number do
    local still = {}
    for _, queue in ipairs(open) do
      local id = #leases < number and next_job(queue)
      if id then
        lease(id, queue)
        still[#still + 1] = queue
      end
    end
    open = still
  end
end

local function lease_again(encoded)
  for _, id in ipairs(cjson.decode(encoded)) do
    local state, by = read(id, 'state', 'nonce')
    if state == RUNNING and by == nonce then lease(id) end
  end
end

local last = redis.call('GET', P .. 'batch:' .. holder)
if last and string.sub(last, 1, #nonce) == nonce then
  lease_again(string.sub(last, #nonce + 1))
else
  lease_in_turn()
  lease_announced()
  if #ids > 0 then redis.call('SET', P .. 'batch:' .. holder, nonce .. cjson.encode(ids), 'PX', lease_ms) end
end

-- The caller asks the record, so these doorbells need not cost Celery anything. One for another task stays, and all behind.
local function drop_stale_doorbells(queue, max)
  for _ = 1, max do
    local message = redis.call('RPOP', queue.name)
    if not message then return end
    local ok, stale = pcall(function() return runs(queue, cjson.decode(message).headers.task) end)
    if not (ok and stale) then return redis.call('RPUSH', queue.name, message) end
  end
end

-- All slots of the caller are busy and jobs wait: perhaps another worker is idle.
local function ring_for_others(queue, id, task)
  if now - tonumber(redis.call('HGET', slots_key(queue.name), 'rang') or 0) < POLL_MS then return end
  redis.call('HSET', slots_key(queue.name), 'rang', now)
  bells[1], bells[2], bells[3] = id, task, queue.name
end

local left = ''
for _, queue in ipairs(queues) do
  local passes_over = queue.passed > MAX_PASSED_OVER
  redis.call('HSET', slots_key(queue.name), 'tasks', queue.tasks, 'quiet', polls and not passes_over and now + POLL_MS or 0)
  redis.call('PEXPIRE', slots_key(queue.name), REGISTERED_MS)
  if same_server then drop_stale_doorbells(queue, queue.leased + (polls and not passes_over and MAX_STALE or 0)) end
  local id, task = next_job(queue)
  if id and #leases == number then
    left = 'left'
    ring_for_others(queue, id, task)
  end
end
return { bells, left, unpack(leases) }
