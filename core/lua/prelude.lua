-- Prepended to every script. Key names are built here, so: one Redis node (or Sentinel), no Cluster.
--   job:<id>            hash, the record            events:<id>      stream, its history
--   queue:<kind>:<cls>  sorted set, waiting ids     classes:<kind>   set, queues that may hold ids
--   reaped_at           ms, while there are leases
--   leases              sorted set, expiry in ms    owner:<name>     set, ids a worker holds
--   held                hash, worker -> the classes that it has at hand, parted by spaces
--   unwanted            the same of those that it takes none of now
--   queued:<kind>       counter                     open:<kind>      hash, tenant -> jobs not ended
--   clock:<kind>        virtual time                tags:<kind>      hash, tenant -> finish tag
--   deadlines           sorted set, ids not ended, by the time in ms when each is given up
--   webhooks            sorted set, ids whose end is to be told, see service/webhooks/outbox.py
--   jobs:<kind>         sorted set, ids by creation jobs:<kind>:<tenant>  the same, of one tenant
--   outcomes:<kind>     hash, state -> jobs ever ended so
--   dead                list, ids that used up      quota:<tenant>:<day>  pictures of that day
--                       their attempts              previews:<id>  JSON, while a job runs
--   samples:<id>        JSON, as long as the record
--   followed:<id>       for seconds, while a client reads a job's events as they come
--   ended               channel, the id of each job that ends
--   cancelled:<owner>   channel, the id of each job that its worker is to stop
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- What was accepted goes on when the memory is full: a script that has written something may go on
-- writing, and deleting is never refused.
local function go_on_in_full_memory()
  redis.call('DEL', 'no such key')
end

-- What speaks against new work: memory|full|tenant_full and how much there is; nil: nothing.
local function refuses(kind, tenant, bound, tenant_bound)
  -- While there is still room for what the old work needs to end: events, wakes, beats.
  local memory = redis.call('INFO', 'memory')
  local used, most = memory:match('used_memory:(%d+)'), memory:match('maxmemory:(%d+)')
  if tonumber(most) > 0 and tonumber(used) > 0.9 * tonumber(most) then return 'memory', used end

  local queued = tonumber(redis.call('GET', 'queued:' .. kind) or 0)
  if queued >= tonumber(bound) then return 'full', tostring(queued) end
  local open = tonumber(redis.call('HGET', 'open:' .. kind, tenant) or 0)
  if open >= tonumber(tenant_bound) then return 'tenant_full', tostring(open) end
end

-- Of a long history the oldest progress is forgotten, and what happened stays: who listens late is
-- told when the job was accepted and begun, and why it waited again.
local function event(id, ...)
  local key = 'events:' .. id
  redis.call('XADD', key, '*', ...)
  if redis.call('XLEN', key) <= 640 then return end
  for _, entry in ipairs(redis.call('XRANGE', key, '-', '+', 'COUNT', 128)) do
    if entry[2][1] == 'progress' then redis.call('XDEL', key, entry[1]) end
  end
  -- Of a job that was handed back again and again that may have been nothing.
  redis.call('XTRIM', key, 'MAXLEN', '~', 1024)
end

local function get(id, field)
  return redis.call('HGET', 'job:' .. id, field)
end

local function enqueue(id, kind, class)
  redis.call('HSET', 'job:' .. id, 'state', 'queued', 'token', '', 'owner', '')
  redis.call('ZADD', 'queue:' .. kind .. ':' .. class, get(id, 'score'), id)
  redis.call('SADD', 'classes:' .. kind, class)
  redis.call('INCR', 'queued:' .. kind)
end

local function leave_queue(id)
  local kind = get(id, 'kind')
  redis.call('ZREM', 'queue:' .. kind .. ':' .. get(id, 'class'), id)
  redis.call('DECR', 'queued:' .. kind)
end

local function is_late(id)
  local deadline = get(id, 'deadline')
  return deadline and tonumber(deadline) <= now()
end

local function let_go(id)
  redis.call('ZREM', 'leases', id)
  redis.call('SREM', 'owner:' .. (get(id, 'owner') or ''), id)
end

-- How long the record is kept was agreed when the job was accepted; `ttl_ms` is for those of earlier
-- versions, which do not say.
local function finish(id, state, ttl_ms)
  local kind = get(id, 'kind')
  ttl_ms = get(id, 'keep_ms') or ttl_ms
  redis.call('HSET', 'job:' .. id, 'state', state, 'finished_at', now(), 'token', '', 'owner', '')
  if redis.call('HINCRBY', 'open:' .. kind, get(id, 'tenant'), -1) <= 0 then
    redis.call('HDEL', 'open:' .. kind, get(id, 'tenant'))
  end
  redis.call('HINCRBY', 'outcomes:' .. kind, state, 1)
  event(id, 'state', state)
  redis.call('ZREM', 'deadlines', id)
  if get(id, 'webhook') then redis.call('ZADD', 'webhooks', now(), id) end
  redis.call('DEL', 'previews:' .. id)
  redis.call('PEXPIRE', 'job:' .. id, ttl_ms)
  redis.call('PEXPIRE', 'events:' .. id, ttl_ms)
  redis.call('PEXPIRE', 'samples:' .. id, ttl_ms)
  redis.call('PUBLISH', 'ended', id)
end

local function give_up(id, reason, ttl_ms)
  redis.call('HSET', 'job:' .. id, 'reason', reason)
  finish(id, 'failed', ttl_ms)
end

-- A queued job whose deadline has passed.
local function end_waiting(id, ttl_ms)
  leave_queue(id)
  give_up(id, 'its deadline passed before it was begun', ttl_ms)
end

-- A running job whose worker is gone: back to its queue, or to its end.
local function give_back(id, why, ttl_ms)
  let_go(id)
  if get(id, 'state') ~= 'running' then return 0 end
  if get(id, 'cancel') then
    finish(id, 'cancelled', ttl_ms)
    return 0
  end
  if is_late(id) then
    give_up(id, 'its deadline passed while it waited to be tried again: ' .. why, ttl_ms)
    return 0
  end
  if tonumber(get(id, 'attempt')) >= tonumber(get(id, 'max_attempts')) then
    redis.call('LPUSH', 'dead', id)
    redis.call('LTRIM', 'dead', 0, 999)
    give_up(id, 'gave up after ' .. get(id, 'attempt') .. ' attempts: ' .. why, ttl_ms)
    return 0
  end
  enqueue(id, get(id, 'kind'), get(id, 'class'))
  event(id, 'state', 'queued', 'why', why)
  return 1
end

-- A running job that its worker lost to an outage of this server: no attempt is counted, but no more
-- often than the job may be tried, for it might be what takes the server down.
local function let_go_in_outage(id, why, ttl_ms)
  local outages = redis.call('HINCRBY', 'job:' .. id, 'outages', 1)
  if outages <= tonumber(get(id, 'max_attempts')) then redis.call('HINCRBY', 'job:' .. id, 'attempt', -1) end
  return give_back(id, why, ttl_ms)
end
