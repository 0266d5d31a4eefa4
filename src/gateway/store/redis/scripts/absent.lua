-- Takes entries out of indexes whose records have expired.
-- KEYS: vx:names, then for each its record and the index of its service; ARGV: service and id for each
local function kind(key)
  return redis.call('TYPE', key).ok
end
local removed = 0
for n = 1, #ARGV / 2 do
  local record, index, service, id = KEYS[2 * n], KEYS[2 * n + 1], ARGV[2 * n - 1], ARGV[2 * n]
  if kind(record) == 'none' and kind(index) == 'hash' then
    local entry = redis.call('HGET', index, id)
    if entry and string.sub(entry, 1, 1) == 'r' then
      removed = removed + redis.call('HDEL', index, id)
      if redis.call('HLEN', index) == 0 and kind(KEYS[1]) == 'set' then
        redis.call('SREM', KEYS[1], service)
      end
    end
  end
end
return removed
