-- End a job with succeeded|failed|cancelled. Returns 1, or 0 from a worker whose lease is lost.
go_on_in_full_memory()
local id, token, state, result, reason, ttl_ms = unpack(ARGV)
-- The same commit again, after its reply was lost on the way.
if get(id, 'done_token') == token then return 1 end
if get(id, 'token') ~= token or get(id, 'state') ~= 'running' then return 0 end
let_go(id)
redis.call('HSET', 'job:' .. id, 'done_token', token)
if result ~= '' then redis.call('HSET', 'job:' .. id, 'result', result) end
if reason ~= '' then redis.call('HSET', 'job:' .. id, 'reason', reason) end
finish(id, state, ttl_ms)
return 1
