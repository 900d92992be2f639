-- Lease the next jobs to a worker: in order of score, up to `slots` units of cost.
-- Returns id, token, attempt, alone, spec, tenant, request_id, waited_ms for each.
go_on_in_full_memory()
local kind, owner, slots, lease_ms, held_words, bonus, idle, ttl_ms, patience_ms, without, known = unpack(ARGV)
slots = tonumber(slots)
local claimed, at = {}, now()

-- What this worker was given in a reply that never reached it, nobody works on. A worker claims from
-- one thread, so whatever it does not know of is of an earlier claim, not of one under way.
if known ~= 'unsaid' then
  local tokens = {}
  for token in known:gmatch('%S+') do tokens[token] = true end
  for _, id in ipairs(redis.call('SMEMBERS', 'owner:' .. owner)) do
    if get(id, 'state') == 'running' and not tokens[get(id, 'token')] then
      let_go_in_outage(id, 'the broker was away when it was given to a worker', ttl_ms)
    end
  end
end

-- Classes that the worker holds -> how much sooner it takes them; that it draws with the most.
local held = {}
for class in held_words:gmatch('%S+') do
  if not held[class] then held[class] = next(held) and tonumber(bonus) / 2 or tonumber(bonus) end
end
local unwanted = {}
for class in without:gmatch('%S+') do unwanted[class] = true end

-- The other workers of this role that live.
local others
local function other_workers()
  if not others then
    others = {}
    local role = owner:match('^[^-]*')
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', 'workers', (at - lease_ms) / 1000, '+inf')) do
      if name:match('^[^-]*') == role and name ~= owner then others[#others + 1] = name end
    end
  end
  return others
end

local function cost_of(ids)
  local sum = 0
  for _, id in ipairs(ids) do sum = sum + tonumber(get(id, 'cost') or 0) end
  return sum
end

-- What a worker holds, in units of cost: a job of eight pictures fills it as eight jobs of one do.
local loads = {}
local function load_of(name)
  if not loads[name] then loads[name] = cost_of(redis.call('SMEMBERS', 'owner:' .. name)) end
  return loads[name]
end

-- What waits; of a long queue the first hundred jobs stand for the others.
local function waiting_cost()
  local waiting, seen = tonumber(redis.call('GET', 'queued:' .. kind) or 0), {}
  for _, class in ipairs(redis.call('SMEMBERS', 'classes:' .. kind)) do
    if #seen >= 100 then break end
    for _, id in ipairs(redis.call('ZRANGE', 'queue:' .. kind .. ':' .. class, 0, 99 - #seen)) do
      seen[#seen + 1] = id
    end
  end
  return #seen == 0 and 0 or cost_of(seen) * waiting / #seen
end

-- What each worker would hold, were everything shared out evenly.
local share
local function fair_share()
  if #other_workers() == 0 then return math.huge end
  if not share then
    local open = waiting_cost() + load_of(owner)
    for _, name in ipairs(other_workers()) do open = open + load_of(name) end
    share = math.ceil(open / (#other_workers() + 1))
  end
  return share
end

-- A job that has just come is left to others for a moment: they are awake by then.
local function is_young(id)
  return at - tonumber(get(id, 'created_at')) < tonumber(patience_ms)
end

-- Whether another worker is drawing, has the class at hand, and less to do than its share: then it
-- claims at its next step, without loading anything. Nobody waits for one who sleeps: who knows
-- which worker a wake wakes.
local elsewhere
local function is_at_hand_elsewhere(class)
  if not elsewhere then
    elsewhere = {}
    for _, name in ipairs(other_workers()) do
      if load_of(name) > 0 and load_of(name) < fair_share() then
        for theirs in (redis.call('HGET', 'held', name) or ''):gmatch('%S+') do elsewhere[theirs] = true end
      end
    end
  end
  return elsewhere[class]
end

-- The first of a class that this worker has not passed over; one whose deadline has passed ends
-- here, whoever else was to see to it.
local passed = {}
local function head_of(class)
  while true do
    local place = passed[class] or 0
    local head = redis.call('ZRANGE', 'queue:' .. kind .. ':' .. class, place, place, 'WITHSCORES')
    if not head[1] or not is_late(head[1]) then return head end
    end_waiting(head[1], ttl_ms)
  end
end

-- The class whose head comes first; those that the worker already holds come a little sooner.
-- Nobody starves: what is held gains no more than `bonus` on what waits, and what is left to another
-- worker is left to it no longer than it is young.
local function first()
  local best, best_id, best_score
  for _, class in ipairs(redis.call('SMEMBERS', 'classes:' .. kind)) do
    local head = head_of(class)
    if not head[1] then
      if not passed[class] then redis.call('SREM', 'classes:' .. kind, class) end
    elseif not unwanted[class]
        and (held[class] or not is_young(head[1]) or not is_at_hand_elsewhere(class)) then
      local score = tonumber(head[2]) - (held[class] or 0)
      if not best_score or score < best_score or (score == best_score and class < best) then
        best, best_id, best_score = class, head[1], score
      end
    end
  end
  return best, best_id
end

-- For the others to know. In one order, so that it is rarely written: claims are made at every step.
local function tell(key, classes)
  local names = {}
  for class in pairs(classes) do names[#names + 1] = class end
  table.sort(names)
  local told = table.concat(names, ' ')
  if told ~= (redis.call('HGET', key, owner) or '') then
    redis.call('HSET', key, owner, told)
    for _, name in ipairs(redis.call('HKEYS', key)) do
      if name ~= owner and not redis.call('ZSCORE', 'workers', name) then redis.call('HDEL', key, name) end
    end
  end
end
tell('held', held)
tell('unwanted', unwanted)

-- Whether another worker takes none of a class now.
local unwanted_by = {}
local function takes_none(name, class)
  if not unwanted_by[name] then
    unwanted_by[name] = {}
    for theirs in (redis.call('HGET', 'unwanted', name) or ''):gmatch('%S+') do unwanted_by[name][theirs] = true end
  end
  return unwanted_by[name][class]
end

-- Whether this worker waits until it holds little enough for a job that has no place beside what it
-- holds now. The first such job is for the worker that holds least, the next for the one that holds
-- next to least; whoever holds more passes over it, so that one job does not stop all workers. Nor does
-- it starve: who holds least takes nothing that comes after it, so the least that one holds only shrinks.
-- Nobody counts on who takes none of that class now, or on who holds nothing: he would have
-- taken it, did he not sleep, and may be gone.
local passes = 0
local function makes_room(class)
  local before, mine = 0, load_of(owner)
  for _, name in ipairs(other_workers()) do
    local theirs = load_of(name)
    if theirs > 0 and (theirs < mine or (theirs == mine and name < owner)) and not takes_none(name, class) then
      before = before + 1
    end
  end
  return before <= passes
end

local function take(id, cost, alone)
  leave_queue(id)
  local token = redis.call('INCR', 'token')
  local attempt = redis.call('HINCRBY', 'job:' .. id, 'attempt', 1)
  redis.call('HSET', 'job:' .. id, 'state', 'running', 'token', token, 'owner', owner, 'started_at', at)
  if redis.call('EXISTS', 'leases') == 0 then redis.call('SET', 'reaped_at', at) end
  redis.call('ZADD', 'leases', at + tonumber(lease_ms), id)
  redis.call('SADD', 'owner:' .. owner, id)
  if loads[owner] then loads[owner] = loads[owner] + cost end
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
end

while slots > 0 do
  local class, id = first()
  if not id then break end
  local cost = tonumber(get(id, 'cost'))
  -- A job that already took a worker down runs alone, so that it cannot burn its neighbours' attempts.
  local alone = get(id, 'alone') == '1' or tonumber(get(id, 'attempt')) > 0
  local unused = idle == '1' and #claimed == 0
  if (alone or cost > slots) and not unused then
    if makes_room(class) then break end
    passed[class], passes = (passed[class] or 0) + 1, passes + 1
  elseif is_young(id) and load_of(owner) >= fair_share() then
    break
  else
    take(id, cost, alone)
    if alone then break end
  end
end
return claimed
