-- Hand a job back. counted=0: as if it had never been claimed (a worker that shuts down);
-- counted=1: this attempt failed, another may succeed. counted=outage: this server was away for so
-- long that the worker let go. Returns 1, or 0 if the lease is lost.
go_on_in_full_memory()
local id, token, counted, why, ttl_ms = unpack(ARGV)
if get(id, 'token') ~= token or get(id, 'state') ~= 'running' then return 0 end
if counted == 'outage' then
  let_go_in_outage(id, why, ttl_ms)
else
  if counted == '0' then redis.call('HINCRBY', 'job:' .. id, 'attempt', -1) end
  give_back(id, why, ttl_ms)
end
return 1
