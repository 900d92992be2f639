-- Tell how far a running job is. Returns 1, or 0 from a worker whose lease is lost.
go_on_in_full_memory()
local id, token, progress, previews, ttl_ms = unpack(ARGV)
if get(id, 'token') ~= token then return 0 end
redis.call('HSET', 'job:' .. id, 'progress', progress)
-- Before the event: who reads of them finds them.
if previews ~= '' then redis.call('SET', 'previews:' .. id, previews, 'PX', ttl_ms) end
event(id, 'progress', progress)
return 1
