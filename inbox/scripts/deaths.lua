-- Placed after common.lua before the scripts that end the leases of dead processes.

-- The process that held the lease has died. The first time, the job runs again at once. A job that kills its worker again
-- and again must not use up its attempts within seconds: it waits twice as long each time, until its lease would have ended.
local function end_lease_of_dead_process(id)
  local until_ms = tonumber(read(id, 'until'))
  end_lease(id, 'the worker process died', function(lost)
    return lost == 1 and now or math.max(now, math.min(until_ms, now + 1000 * 2 ^ (lost - 1)))
  end)
end

-- The running attempt of a job; nil if it is not running.
local function running_attempt(id)
  local state, token = read(id, 'state', 'token')
  local attempt = state == RUNNING and read(id, 'attempt:' .. token)
  return attempt and cjson.decode(attempt) or nil
end

-- In its next attempt this job is a suspect: a process runs only one at a time (see lease_next).
local function suspect(id) redis.call('HSET', job_key(id), 'suspect', read(id, 'token')) end

local function lose(id)
  end_lease_of_dead_process(id)
  suspect(id)
  local state, due = read(id, 'state', 'due')
  if state == PENDING and not is_early(id, due) then ring_in_turn(id) end
end

local function return_from_dead_process(id)
  give_back(id, read(id, 'token'), 'the worker process died')
end

local function return_as_suspect(id)
  return_from_dead_process(id)
  suspect(id)
end

-- A process with several jobs has died. Any of them may have killed it, so none loses an attempt, and all are suspects.
-- If a process dies with one suspect, that was it: it stays one, and the others are returned.
local function end_process(leases, jobs)
  local has_suspect = false
  for _, job in ipairs(jobs) do has_suspect = has_suspect or job.suspect end
  for _, job in ipairs(jobs) do
    local is_culprit = #jobs == 1 or job.suspect
    local end_one = is_culprit and lose or has_suspect and return_from_dead_process or return_as_suspect
    if not handle_safely(end_one, job.id) then redis.call('SREM', leases, job.id) end
  end
end

-- The leases of one process of a worker, or of all of them, end now.
local function end_leases(worker, dead)
  local leases, jobs = P .. 'leases:' .. worker, {}
  local function collect(id)
    local attempt = running_attempt(id)
    if not attempt or leases_key(attempt.holder) ~= leases then
      redis.call('SREM', leases, id) -- an older version of Holdfast has ended this lease
    elseif not dead or attempt.holder == dead then
      jobs[attempt.holder] = jobs[attempt.holder] or {}
      table.insert(jobs[attempt.holder], { id = id, suspect = attempt.suspect })
    end
  end
  for _, id in ipairs(redis.call('SMEMBERS', leases)) do
    if not handle_safely(collect, id) then redis.call('SREM', leases, id) end
  end
  for _, of_process in pairs(jobs) do end_process(leases, of_process) end
end
