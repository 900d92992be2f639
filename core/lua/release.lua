-- Hand a job back. counted=0: as if it had never been claimed (a worker that shuts down);
-- counted=1: this attempt failed, another may succeed. counted=outage: this server was away for so
-- long that the worker let go; as 0, but no more often than the job may be tried, for it might be
-- what takes the server down. Returns 1, or 0 if the lease is lost.
go_on_in_full_memory()
local id, token, counted, why, ttl_ms = unpack(ARGV)
if get(id, 'token') ~= token or get(id, 'state') ~= 'running' then return 0 end
local uncounted = counted == '0'
if counted == 'outage' then
  local outages = redis.call('HINCRBY', 'job:' .. id, 'outages', 1)
  uncounted = outages <= tonumber(get(id, 'max_attempts'))
end
if uncounted then redis.call('HINCRBY', 'job:' .. id, 'attempt', -1) end
give_back(id, why, ttl_ms)
return 1
