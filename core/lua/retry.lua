-- Queue a failed job again, for as many attempts as it had. Returns {again|full|tenant_full|memory|
-- the state it is in, count}, or false if there is no such job. Its deadline has done its work and
-- is dropped.
local id, bound, tenant_bound, attempts = unpack(ARGV)
local state = get(id, 'state')
if state ~= 'failed' then
  -- The same retry again, after its reply was lost on the way.
  if get(id, 'retried') then return {'again', '0'} end
  return state and {state, '0'} or false
end
local kind, tenant = get(id, 'kind'), get(id, 'tenant')
local verdict, count = refuses(kind, tenant, bound, tenant_bound)
if verdict then return {verdict, count} end

redis.call('LREM', 'dead', 0, id)
redis.call('PERSIST', 'job:' .. id)
redis.call('PERSIST', 'events:' .. id)
redis.call('PERSIST', 'samples:' .. id)
redis.call('HDEL', 'job:' .. id, 'reason', 'result', 'finished_at', 'progress', 'cancel',
  'deadline', 'done_token', 'webhook_tries', 'webhook_delivered', 'webhook_problem', 'outages')
redis.call('ZREM', 'webhooks', id)
redis.call('HSET', 'job:' .. id, 'retried', 1,
  'max_attempts', tonumber(get(id, 'attempt')) + tonumber(attempts))
redis.call('HINCRBY', 'open:' .. kind, tenant, 1)
enqueue(id, kind, get(id, 'class'))
event(id, 'state', 'queued', 'why', 'somebody asked to try it again')
return {'again', '0'}
