-- Where the feeds end at one moment: the number of the last event, and the last id of either stream.
-- KEYS: vx:seq, vx:events, vx:renewals
local function last(key)
  if redis.call('TYPE', key).ok ~= 'stream' then
    return '0-0'
  end
  local entries = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)
  return entries[1] and entries[1][1] or '0-0'
end
local seq = '0'
if redis.call('TYPE', KEYS[1]).ok == 'string' and redis.call('STRLEN', KEYS[1]) < 20 then
  seq = string.match(redis.call('GET', KEYS[1]), '^%d+$') or '0'
end
return { seq, last(KEYS[2]), last(KEYS[3]) }
