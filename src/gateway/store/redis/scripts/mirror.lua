-- Shows a service's best instance to the predecessor, unless the predecessor has written another one there itself.
-- KEYS: services:<service>, services:index, vx:mirrors
-- ARGV: service, left ms, endpoint, health endpoint, metadata, registered at, last heartbeat
local function is(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end
if not (is(KEYS[1], 'hash') and is(KEYS[2], 'set') and is(KEYS[3], 'hash')) then
  return 'foreign'
end
local shown = redis.call('HGET', KEYS[1], 'endpoint')
if shown and shown ~= ARGV[3] then
  local ours = redis.call('HGET', KEYS[3], ARGV[1])
  if not ours or string.sub(ours, 1, #shown + 1) ~= shown .. ' ' then
    return 'theirs'
  end
end
redis.call('HSET', KEYS[1], 'endpoint', ARGV[3], 'health_endpoint', ARGV[4], 'metadata', ARGV[5], 'registered_at', ARGV[6], 'last_heartbeat', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SADD', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3] .. ' ' .. ARGV[7])
return 'written'
