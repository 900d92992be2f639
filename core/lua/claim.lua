-- Lease the next jobs to a worker: in order of score, up to `slots` units of cost.
-- Returns id, token, attempt, alone, spec, tenant, request_id, waited_ms for each.
go_on_in_full_memory()
local kind, owner, slots, lease_ms, held, bonus, idle, ttl_ms, patience_ms = unpack(ARGV)
slots = tonumber(slots)

-- The head of a class; one whose deadline has passed ends here, whoever else was to see to it.
local function head_of(class)
  while true do
    local head = redis.call('ZRANGE', 'queue:' .. kind .. ':' .. class, 0, 0, 'WITHSCORES')
    if not head[1] or not is_late(head[1]) then return head end
    end_waiting(head[1], ttl_ms)
  end
end

-- The class whose head comes first; one that the worker already holds comes a little sooner.
local function first()
  local best, best_id, best_score
  for _, class in ipairs(redis.call('SMEMBERS', 'classes:' .. kind)) do
    local head = head_of(class)
    if not head[1] then
      redis.call('SREM', 'classes:' .. kind, class)
    else
      local score = tonumber(head[2])
      if class == held then score = score - tonumber(bonus) end
      if not best_score or score < best_score or (score == best_score and class < best) then
        best, best_id, best_score = class, head[1], score
      end
    end
  end
  return best, best_id
end

local claimed, at = {}, now()

-- How many jobs each of the workers of this role that live would hold, were they shared out evenly.
local share
local function fair_share()
  if not share then
    local role, workers = owner:match('^[^-]*'), 0
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', 'workers', (at - lease_ms) / 1000, '+inf')) do
      if name:match('^[^-]*') == role then workers = workers + 1 end
    end
    local open = tonumber(redis.call('GET', 'queued:' .. kind) or 0) + redis.call('ZCARD', 'leases')
    share = workers > 1 and math.ceil(open / workers) or open
  end
  return share
end

while slots > 0 do
  local class, id = first()
  if not id then break end
  local cost = tonumber(get(id, 'cost'))
  -- A job that already took a worker down runs alone, so that it cannot burn its neighbours' attempts.
  local alone = get(id, 'alone') == '1' or tonumber(get(id, 'attempt')) > 0
  local unused = idle == '1' and #claimed == 0
  if (alone or cost > slots) and not unused then break end
  -- A job that has just come is left to those who hold less; whoever they are, they are awake by then.
  local young = at - tonumber(get(id, 'created_at')) < tonumber(patience_ms)
  if young and redis.call('SCARD', 'owner:' .. owner) >= fair_share() then break end

  leave_queue(id)
  local token = redis.call('INCR', 'token')
  local attempt = redis.call('HINCRBY', 'job:' .. id, 'attempt', 1)
  redis.call('HSET', 'job:' .. id, 'state', 'running', 'token', token, 'owner', owner, 'started_at', at)
  if redis.call('EXISTS', 'leases') == 0 then redis.call('SET', 'reaped_at', at) end
  redis.call('ZADD', 'leases', at + tonumber(lease_ms), id)
  redis.call('SADD', 'owner:' .. owner, id)
  local start = tonumber(get(id, 'start_tag'))
  if start > tonumber(redis.call('GET', 'clock:' .. kind) or 0) then
    redis.call('SET', 'clock:' .. kind, start)
  end
  event(id, 'state', 'running', 'attempt', attempt)

  local job = redis.call('HMGET', 'job:' .. id, 'spec', 'tenant', 'request_id')
  for _, value in ipairs({id, tostring(token), attempt, alone and 1 or 0, job[1], job[2], job[3] or '',
      at - tonumber(get(id, 'created_at'))}) do
    claimed[#claimed + 1] = value
  end
  slots = slots - cost
  if alone then break end
end
return claimed
