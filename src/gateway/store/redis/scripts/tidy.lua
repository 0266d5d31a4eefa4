-- Takes entries out of a service's index that still say what they said.
-- KEYS: index of the service, vx:names; ARGV: service, then id and entry for each
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' or redis.call('TYPE', KEYS[2]).ok ~= 'set' then
  return 0
end
local removed = 0
for n = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[n]) == ARGV[n + 1] then
    removed = removed + redis.call('HDEL', KEYS[1], ARGV[n])
  end
end
if redis.call('HLEN', KEYS[1]) == 0 then
  redis.call('SREM', KEYS[2], ARGV[1])
end
return removed
