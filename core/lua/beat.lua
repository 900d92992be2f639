-- Keep leases alive. ARGV: lease_ms, then id, token, id, token ...
-- Returns id, lost|cancelled|late for each job that is not to go on.
go_on_in_full_memory()
local out, at = {}, now()
for i = 2, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  if get(id, 'token') ~= token then
    out[#out + 1] = id
    out[#out + 1] = 'lost'
  else
    redis.call('ZADD', 'leases', 'XX', at + tonumber(ARGV[1]), id)
    if get(id, 'cancel') then
      out[#out + 1] = id
      out[#out + 1] = 'cancelled'
    elseif is_late(id) then
      out[#out + 1] = id
      out[#out + 1] = 'late'
    end
  end
end
return out
