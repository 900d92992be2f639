-- Give back what dead workers held: all leases of one owner, or (owner '') every lapsed lease.
-- The latter also ends what waits past its deadline; running jobs are told by their beats.
-- Returns the number of jobs that wait again.
go_on_in_full_memory()
local owner, ttl_ms = unpack(ARGV)
local ids
if owner ~= '' then
  ids = redis.call('SMEMBERS', 'owner:' .. owner)
else
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'deadlines', '-inf', now(), 'LIMIT', 0, 200)) do
    if get(id, 'state') == 'queued' then end_waiting(id, ttl_ms) end
  end
  ids = redis.call('ZRANGEBYSCORE', 'leases', '-inf', now(), 'LIMIT', 0, 200)
end
local again = 0
for _, id in ipairs(ids) do
  again = again + give_back(id, owner ~= '' and 'its worker was restarted' or 'its worker stopped beating', ttl_ms)
end
return again
