-- Sends the bodies of a file in turn, one a request; says what it measured as one line of JSON.
-- Arguments: method, path, file of bodies ("-" for none), then name and value of each header.
local requests, at = {}, 0

function init(args)
  local headers = {}
  for i = 4, #args, 2 do headers[args[i]] = args[i + 1] end
  if args[3] == "-" then
    requests[1] = wrk.format(args[1], args[2], headers, nil)
    return
  end
  headers["Content-Type"] = "application/json"
  for line in io.lines(args[3]) do
    requests[#requests + 1] = wrk.format(args[1], args[2], headers, line)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "failed": %d, "p50_ms": %.3f, "p95_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
