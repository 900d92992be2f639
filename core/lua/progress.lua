-- Tell how far running jobs are. ARGV: ttl_ms, then id, token, progress, previews for each job.
-- Returns for each: 0 from a worker whose lease is lost, 2 where a client follows it, else 1.
go_on_in_full_memory()
local out = {}
for i = 2, #ARGV, 4 do
  local id, token, progress, previews = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if get(id, 'token') ~= token then
    out[#out + 1] = 0
  else
    redis.call('HSET', 'job:' .. id, 'progress', progress)
    -- Before the event: who reads of them finds them.
    if previews ~= '' then redis.call('SET', 'previews:' .. id, previews, 'PX', ARGV[1]) end
    event(id, 'progress', progress)
    out[#out + 1] = redis.call('EXISTS', 'followed:' .. id) + 1
  end
end
return out
