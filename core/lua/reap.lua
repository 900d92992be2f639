-- Give back what dead workers held: all leases of one owner, or (owner '') every lapsed lease.
-- The latter also ends what waits past its deadline; running jobs are told by their beats.
-- Returns the number of jobs that wait again.
go_on_in_full_memory()
local owner, ttl_ms = unpack(ARGV)

-- Sweepers come every second. A longer gap means that nobody could reach this server, so nobody
-- could beat either: that time does not count. Nor does time that a clock which was set back has
-- again: a dead host would keep its jobs for it.
local function stop_the_clock_for_outages()
  local last, at = tonumber(redis.call('GET', 'reaped_at') or now()), now()
  if at - last > 3000 or at < last then
    -- What was beaten since a clock was set back goes by it already.
    local first = at < last and last or '-inf'
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'leases', first, '+inf')) do
      redis.call('ZINCRBY', 'leases', at - last, id)
    end
  end
  -- Written while there is something to reap only: an idle server's log is not to grow.
  if redis.call('EXISTS', 'leases') == 1 then redis.call('SET', 'reaped_at', at) end
end

local ids
if owner ~= '' then
  ids = redis.call('SMEMBERS', 'owner:' .. owner)
else
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'deadlines', '-inf', now(), 'LIMIT', 0, 200)) do
    if get(id, 'state') == 'queued' then end_waiting(id, ttl_ms) end
  end
  stop_the_clock_for_outages()
  ids = redis.call('ZRANGEBYSCORE', 'leases', '-inf', now(), 'LIMIT', 0, 200)
end
local again = 0
for _, id in ipairs(ids) do
  again = again + give_back(id, owner ~= '' and 'its worker was restarted' or 'its worker stopped beating', ttl_ms)
end
return again
