-- Cancel a job. Returns the state it was in (queued: it has ended now; running: its worker will
-- be told at once, or by its next beat if it does not listen; an end state: too late), or false if there is no such job.
go_on_in_full_memory()
local id, ttl_ms = unpack(ARGV)
local state = get(id, 'state')
if state == 'queued' then
  leave_queue(id)
  finish(id, 'cancelled', ttl_ms)
elseif state == 'running' then
  redis.call('HSET', 'job:' .. id, 'cancel', 1)
  redis.call('PUBLISH', 'cancelled:' .. (get(id, 'owner') or ''), id)
end
return state
