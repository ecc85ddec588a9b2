-- Sends ready-made requests, each once, from a file of records of one length: wrk -s wrk.lua … -- <file> <length>
local file, length, last

function init(args)
  file, length = assert(io.open(args[1], 'rb')), tonumber(args[2])
end

-- Out of records, it repeats the last: a duplicate, which the count of what was recorded shows.
function request()
  last = file:read(length) or last
  return last
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('RESULT {"answers": %d, "refused": %d, "broken": %d, "seconds": %f, "latencies": {"p50": %f, "p99": %f, "p999": %f}}\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency:percentile(99.9) / 1000))
end
