-- Keep what an erasure draws on its way. Returns 1, or 0 from a worker whose lease is lost.
go_on_in_full_memory()
local id, token, samples = unpack(ARGV)
if get(id, 'token') ~= token then return 0 end
redis.call('SET', 'samples:' .. id, samples)
return 1
