-- Keeps the result of a health check for a while.
-- KEYS: health:<service>; ARGV: seconds, then fields and values
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then
  return 'foreign'
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 'written'
