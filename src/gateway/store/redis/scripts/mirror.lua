-- Shows a service's best instance to the predecessor, unless the predecessor has written another one there itself. A replica
-- that is behind would show what others have changed or removed: only what the store has is shown.
-- KEYS: services:<service>, services:index, vx:mirrors, the instance's record
-- ARGV: service, left ms, the instance's version, endpoint, health endpoint, metadata, registered at, last heartbeat
if not (is(KEYS[1], 'hash') and is(KEYS[2], 'set') and is(KEYS[3], 'hash') and is(KEYS[4], 'hash')) then
  return 'foreign'
end
if redis.call('HGET', KEYS[4], 'v') ~= ARGV[3] or redis.call('HEXISTS', KEYS[4], 'record') == 0 then
  return 'outdone'
end
local shown = redis.call('HGET', KEYS[1], 'endpoint')
if shown and shown ~= ARGV[4] then
  local ours = redis.call('HGET', KEYS[3], ARGV[1])
  if not ours or string.sub(ours, 1, #shown + 1) ~= shown .. ' ' then
    return 'theirs'
  end
end
redis.call('HSET', KEYS[1], 'endpoint', ARGV[4], 'health_endpoint', ARGV[5], 'metadata', ARGV[6], 'registered_at', ARGV[7], 'last_heartbeat', ARGV[8])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[4] .. ' ' .. ARGV[8])
return 'written'
