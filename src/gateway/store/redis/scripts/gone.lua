-- Writes the grave of an instance, unless the store knows something newer of it or that it is alive.
-- KEYS: record, index of the service, vx:names, vx:seq, vx:events, services:<service>, services:index, vx:mirrors
-- ARGV: service, id, version, why, by, finishing ms or '', kept ms, when it was decided in µs, events kept
-- What cannot be kept, because something else has its place, the other replicas hear of all the same.
local is_kept = is(KEYS[1], 'hash') and is(KEYS[2], 'hash') and is(KEYS[3], 'set')
local service, id, version, why, by, finishing, kept = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local known = is_kept and redis.call('HMGET', KEYS[1], 'v', 'gone', 'until', 'holder', 'record') or {}
if known[1] and is_damaged(known[1]) then
  is_kept, known = false, {}
end
if known[2] and known[1] and known[1] >= version then
  return 'same'
end
if known[1] and not known[2] then
  if known[1] > version then
    return 'newer'
  end
  -- What ends later than any lease does was written before the clock was set back: nobody knows when it ends.
  local ends = tonumber(known[3] or '') or 0
  if why == 'lapsed' and known[1] == version and known[4] ~= by and ends > now and ends <= now + kept then
    return 'alive'
  end
end
local gone = '{"service":"' .. service .. '","id":"' .. id .. '","v":"' .. version .. '","why":"' .. why .. '","left_ms":' .. ARGV[7]
if finishing ~= '' then
  gone = gone .. ',"finishing_ms":' .. finishing
end
local is_told, refusal = tell(KEYS[4], KEYS[5], ARGV[9], 't', string.format('%.0f', now), 'by', by, 'at', ARGV[8], 'gone', gone .. '}')
if refusal then
  return refusal
end
if not is_kept then
  return 'foreign'
end
keep(kept, 'g' .. version .. ':' .. string.format('%.0f', now + kept), 'v', version, 'gone', by, 'why', why)
-- The flat record goes with the instance that it shows. It may have expired before; the name must not stay behind.
if is(KEYS[6], 'hash') and is(KEYS[7], 'set') and is(KEYS[8], 'hash') then
  local shown = redis.call('HGET', KEYS[6], 'endpoint')
  local ours = false
  if known[5] then
    local ok, record = pcall(cjson.decode, known[5])
    ours = ok and type(record) == 'table' and record.endpoint == shown
  elseif shown and why == 'removed' then
    for _, start in ipairs({ 'http://' .. id, 'https://' .. id }) do
      ours = ours or shown == start or string.sub(shown, 1, #start + 1) == start .. '/'
    end
  end
  if ours then
    redis.call('DEL', KEYS[6])
  end
  if redis.call('EXISTS', KEYS[6]) == 0 then
    redis.call('SREM', KEYS[7], service)
    redis.call('HDEL', KEYS[8], service)
  end
end
return is_told and 'written' or 'unheard'
