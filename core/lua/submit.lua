-- Accept a job: one atomic write of record, queue place, counters and first event.
-- Returns {accepted|replayed|mismatch|full|tenant_full|quota|memory, id or count}.
local id, kind, class, spec, tenant, cost, priority, alone, max_attempts, bound, tenant_bound,
      idem, digest, idem_ttl_ms, request_id, share,
      quota_key, quota, deadline_ms, webhook, keep_ms = unpack(ARGV)

-- The caller chose the id, so its own retry after a lost reply is harmless.
if redis.call('EXISTS', 'job:' .. id) == 1 then return {'accepted', id} end

local idem_key = 'idem:' .. kind .. ':' .. tenant .. ':' .. idem
if idem ~= '' then
  local old = redis.call('HMGET', idem_key, 'id', 'digest')
  if old[1] and redis.call('EXISTS', 'job:' .. old[1]) == 1 then return {old[2] == digest and 'replayed' or 'mismatch', old[1]} end
end

local verdict, count = refuses(kind, tenant, bound, tenant_bound)
if verdict then return {verdict, count} end

-- A quota is counted where its job is accepted, so that nobody pays for a refusal or a replay.
if quota ~= '' then
  local spent = tonumber(redis.call('GET', quota_key) or 0)
  if spent + tonumber(cost) > tonumber(quota) then return {'quota', tostring(spent)} end
  redis.call('INCRBY', quota_key, cost)
  redis.call('EXPIRE', quota_key, 2 * 24 * 3600)
end

-- Start-time fair queueing: a tenant's next job starts where its last one ends in virtual time,
-- or now, whichever is later; a larger share makes its jobs shorter in that time. Priorities are
-- strict and stand above it.
local clock = tonumber(redis.call('GET', 'clock:' .. kind) or 0)
local start = math.max(clock, tonumber(redis.call('HGET', 'tags:' .. kind, tenant) or 0))
redis.call('HSET', 'tags:' .. kind, tenant, start + tonumber(cost) / tonumber(share))
local score = tonumber(priority) * 1e9 + start

local created = now()
redis.call('HSET', 'job:' .. id, 'id', id, 'kind', kind, 'class', class, 'spec', spec,
  'tenant', tenant, 'cost', cost, 'score', score, 'start_tag', start, 'alone', alone,
  'request_id', request_id, 'attempt', 0, 'max_attempts', max_attempts, 'created_at', created,
  'keep_ms', keep_ms)
if webhook ~= '' then redis.call('HSET', 'job:' .. id, 'webhook', webhook) end
if deadline_ms ~= '' then
  redis.call('HSET', 'job:' .. id, 'deadline', created + tonumber(deadline_ms))
  redis.call('ZADD', 'deadlines', created + tonumber(deadline_ms), id)
end
-- Lists of jobs forget the oldest ones whose records have expired: two for each that comes.
for _, list in ipairs({'jobs:' .. kind, 'jobs:' .. kind .. ':' .. tenant}) do
  redis.call('ZADD', list, created, id)
  for _, oldest in ipairs(redis.call('ZRANGE', list, 0, 1)) do
    if redis.call('EXISTS', 'job:' .. oldest) == 0 and oldest ~= id then
      redis.call('ZREM', list, oldest)
    end
  end
end
redis.call('HINCRBY', 'open:' .. kind, tenant, 1)
if idem ~= '' then
  redis.call('HSET', idem_key, 'id', id, 'digest', digest)
  redis.call('PEXPIRE', idem_key, idem_ttl_ms)
end
enqueue(id, kind, class)
event(id, 'state', 'queued')
return {'accepted', id}
