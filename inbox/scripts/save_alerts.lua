-- alarm: what is wrong now is written down, and, where somebody is to be told of it, owed as an event of our own.
-- Guards against: two workers that decide at once, of whom one is too late; a death between decision and message.
local version, state, source, id, type, body, jobs = arg(1), arg(2), arg(3), arg(4), arg(5), arg(6), arg(8)
local key = P .. 'alarms'
if (redis.call('HGET', key, 'version') or '0') ~= version then return { 'stale' } end
redis.call('HSET', key, 'version', version + 1, 'looked', now, 'state', state)
if source then
  begin(source, id, type, body, 0, tonumber(jobs), 9)
  count('due', 1)
end
return { 'ok', unpack(bells) }
