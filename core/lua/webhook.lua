-- Note a try to tell a job's end: it was taken (delivered=1: nothing is left to tell), or not, and
-- why. Returns how many tries there were; -1 if that end is not the job's any more: it was tried
-- again meanwhile, and may have ended anew, which is still to be told; -2 if it has expired.
local id, finished_at, delivered, problem = unpack(ARGV)
if redis.call('EXISTS', 'job:' .. id) == 0 then
  redis.call('ZREM', 'webhooks', id)
  return -2
end
if get(id, 'finished_at') ~= finished_at then return -1 end
redis.call('HSET', 'job:' .. id, 'webhook_problem', problem, 'webhook_delivered', delivered)
if delivered == '1' then redis.call('ZREM', 'webhooks', id) end
return redis.call('HINCRBY', 'job:' .. id, 'webhook_tries', 1)
