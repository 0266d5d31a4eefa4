-- Writes an instance unless the store knows something newer of it.
-- KEYS: record, index of the service, vx:names, vx:seq, vx:events
-- ARGV: service, id, version, holder, left ms, drain ms or '', record, by, when it was decided in µs, events kept, ttl ms
-- What cannot be kept, because something else has its place, the other replicas hear of all the same.
local is_kept = is(KEYS[1], 'hash') and is(KEYS[2], 'hash') and is(KEYS[3], 'set')
local service, id, version, holder, left, drain = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local known = is_kept and redis.call('HMGET', KEYS[1], 'v', 'gone', 'until') or {}
local until_ms = now + left
local spare = 24 * 3600 * 1000
if known[1] and is_damaged(known[1]) then
  is_kept, known = false, {}
end
if known[1] and known[1] > version then
  return known[2] and 'gone' or 'newer'
end
if known[1] == version then
  if known[2] then
    return 'gone'
  end
  redis.call('HSET', KEYS[2], id, 'r' .. version)
  redis.call('SADD', KEYS[3], service)
  local ends = tonumber(known[3] or '') or 0
  -- What ends later than any lease of it was written before the clock was set back.
  if until_ms > ends or ends > now + tonumber(ARGV[11]) + 1000 then
    redis.call('HSET', KEYS[1], 'until', string.format('%.0f', until_ms), 'holder', holder)
    redis.call('PEXPIRE', KEYS[1], left + spare)
  end
  return 'same'
end
local put = '{"v":"' .. version .. '","holder":"' .. holder .. '","left_ms":' .. ARGV[5]
if drain ~= '' then
  put = put .. ',"drain_ms":' .. drain
end
put = put .. ',"record":' .. ARGV[7] .. '}'
local is_told, refusal = tell(KEYS[4], KEYS[5], ARGV[10], 't', string.format('%.0f', now), 'by', ARGV[8], 'at', ARGV[9], 'put', put)
if refusal then
  return refusal
end
if not is_kept then
  return 'foreign'
end
keep(left + spare, 'r' .. version, 'v', version, 'holder', holder, 'until', string.format('%.0f', until_ms), 'record', ARGV[7])
if drain ~= '' then
  redis.call('HSET', KEYS[1], 'drain_until', string.format('%.0f', now + tonumber(drain)))
end
return is_told and 'written' or 'unheard'
