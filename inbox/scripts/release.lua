-- release: a worker that must stop gives its job back at once, and the attempt does not count.
-- Guards against: waiting out the lease of a worker that was told to stop; giving back what somebody else holds.
local id, token = arg(1), arg(2)
if not held(id, token) then return { 'stale' } end
local task, queue, key = read(id, 'task', 'queue', 'key')
close_attempt(id, token, 'released', 'the worker was told to stop')
redis.call('HINCRBY', job_key(id), 'tries', -1)
redis.call('HINCRBY', job_key(id), 'token', 1)
move(id, 'leased', 'ready')
ring(id, task, queue)
unlock(id, key)
return { 'ok', unpack(bells) }
