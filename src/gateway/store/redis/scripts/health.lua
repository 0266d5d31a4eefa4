-- Keeps the result of a health check for a while.
-- KEYS: health:<service>; ARGV: seconds, then fields and values
if not is(KEYS[1], 'hash') then
  return 'foreign'
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 'written'
