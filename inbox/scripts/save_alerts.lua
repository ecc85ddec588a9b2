-- save_alerts: save the state of the alerts, and create the event that announces them to people, if there is one.
-- Guards against: two workers that check at the same time; a crash between saving the state and sending the message.
local version, state, source, id, type, body, jobs = arg(1), arg(2), arg(3), arg(4), arg(5), arg(6), arg(9)
local key = P .. 'alarms'
if (redis.call('HGET', key, 'version') or '0') ~= version then return { 'stale' } end
redis.call('HSET', key, 'version', version + 1, 'looked', now, 'state', state)
if source then
  create_event(source, id, type, body, 0, tonumber(jobs), 10)
  count('due', 1)
end
return with_bells('ok')
