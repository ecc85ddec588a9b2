-- end_leases: a worker's process has died, as its main process has noticed. Its jobs run elsewhere at once. Returns the
-- doorbells to ring.
-- Guards against: waiting until the leases of a dead process expire.
local worker, holder = arg(1), arg(2)
end_leases(worker, holder)
return bells
