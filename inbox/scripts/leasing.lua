-- Placed after common.lua before each script that leases jobs.

local function has_valid_lease(job)
  local state, until_ms = read(job, 'state', 'until')
  return state == RUNNING and tonumber(until_ms) > now
end

-- These scripts return no doorbells: a job that can run because another's lease expired is rung by the next sweep.
local function expire_without_ringing(job)
  expire_lease(job)
  for i = 1, #bells, 3 do
    leave_pending(bells[i], bells[i + 2])
    wait_until(bells[i], bells[i + 2], now)
  end
  bells, rung = {}, {}
end

-- Whether the next attempt of a waiting job is that of a suspect (see deaths.lua).
local function is_suspect(id)
  local token, suspect = read(id, 'token', 'suspect')
  return suspect and suspect == token
end

local function lease_reply(id, token, first, attempt)
  local task, source, event, type, received, args, tries, replays =
    read(id, 'task', 'source', 'event', 'type', 'received', 'args', 'tries', 'replays')
  local body = redis.call('GET', body_key(source, event)) or ''
  return { 'leased', id, token, tries, args, source, event, type, body, received, replays or 0, first, task,
    attempt.task_id, now, attempt.suspect and 1 or 0 }
end

-- A compare-and-set that starts an attempt and issues a fencing token. The reply is the lease, or the reason why there is
-- none: unknown, done, busy, early or waiting. The same nonce gets the same lease again. Without a task_id it makes one.
local function lease_job(id, holder, lease_ms, nonce, task_id)
  if read(id, 'state') == RUNNING then
    if has_valid_lease(id) then
      local token, by = read(id, 'token', 'nonce')
      if by ~= nonce then return { 'busy' } end
      return lease_reply(id, token, 0, cjson.decode(read(id, 'attempt:' .. token)))
    end
    expire_without_ringing(id)
  end
  local state, due, key, queue, last_token, tries = read(id, 'state', 'due', 'key', 'queue', 'token', 'tries')
  if not state then return { 'unknown' } end
  if state ~= PENDING then return { 'done' } end
  if is_early(id, due) then return { 'early' } end

  if key ~= '' then
    local other = redis.call('GET', P .. 'lock:' .. key)
    if other and other ~= id then
      if has_valid_lease(other) then
        local received = read(id, 'received')
        redis.call('ZADD', P .. 'waiting:' .. key, received, id) -- see unlock
        leave_pending(id, queue)
        redis.call('ZADD', P .. 'blocked:' .. queue, received, id)
        return { 'waiting' }
      end
      if read(other, 'state') == RUNNING then expire_without_ringing(other) end
    end
    redis.call('ZREM', P .. 'waiting:' .. key, id)
    redis.call('SET', P .. 'lock:' .. key, id)
  end

  -- The token is a time, not a counter: a replica that became master without having received the last lease must not issue
  -- its token again.
  local token = math.max(last_token + 1, now)
  task_id = task_id or string.sub(redis.sha1hex(id .. ':' .. token), 1, 32)
  local attempt = { started = now, holder = holder, task_id = task_id, suspect = is_suspect(id) or nil }
  change_state(id, PENDING, RUNNING, 'token', token, 'tries', tries + 1, 'until', now + lease_ms, 'nonce', nonce,
    'attempt:' .. token, cjson.encode(attempt))
  leave_pending(id, queue)
  redis.call('ZADD', P .. 'running', now + lease_ms, id)
  redis.call('SADD', leases_key(holder), id)
  if tonumber(due) > newest_leased_due(queue) then redis.call('HSET', P .. 'served', queue, due) end
  return lease_reply(id, token, last_token == '0' and 1 or 0, attempt)
end
