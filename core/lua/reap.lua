-- Give back what dead workers held: all leases of one owner, or (owner '') every lapsed lease.
-- Returns the number of jobs that wait again.
local owner, ttl_ms = unpack(ARGV)
local ids
if owner ~= '' then
  ids = redis.call('SMEMBERS', 'owner:' .. owner)
else
  ids = redis.call('ZRANGEBYSCORE', 'leases', '-inf', now(), 'LIMIT', 0, 200)
end
local again = 0
for _, id in ipairs(ids) do
  again = again + give_back(id, owner ~= '' and 'its worker was restarted' or 'its worker stopped beating', ttl_ms)
end
return again
