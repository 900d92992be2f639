-- Tell how far a running job is. Returns 1, or 0 from a worker whose lease is lost.
local id, token, progress = unpack(ARGV)
if get(id, 'token') ~= token then return 0 end
redis.call('HSET', 'job:' .. id, 'progress', progress)
event(id, 'progress', progress)
return 1
