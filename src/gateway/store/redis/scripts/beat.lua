-- Says that a replica lives, forgets those that have not said so for a minute, and tells the time.
-- KEYS: vx:replicas, vx:epoch
-- ARGV: replica, its description without the closing brace ('' takes it out), a new epoch ('': nothing is written, because it
-- may be that nothing can be), bytes that a description may have
local looks = ARGV[3] == ''
-- What is not ours is left alone; nobody else is known then, and a flush not noticed by this.
local epoch = 'foreign'
if is(KEYS[2], 'string') and redis.call('STRLEN', KEYS[2]) <= 64 then
  if not looks then
    redis.call('SET', KEYS[2], ARGV[3], 'NX')
  end
  epoch = redis.call('GET', KEYS[2]) or ''
end
if not is(KEYS[1], 'hash') then
  return { time[1], time[2], epoch, 'foreign' }
end
if looks then
  -- Nobody is told.
elseif ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ',"at_ms":' .. string.format('%.0f', now) .. '}')
end
local replicas = {}
if redis.call('HLEN', KEYS[1]) <= 1000 then
  for _, replica in ipairs(redis.call('HKEYS', KEYS[1])) do
    -- Reading what is larger than any description would hold everybody up.
    local text = '{}'
    if redis.call('HSTRLEN', KEYS[1], replica) <= tonumber(ARGV[4]) then
      text = redis.call('HGET', KEYS[1], replica)
    end
    local ok, entry = pcall(cjson.decode, text)
    local at = ok and type(entry) == 'table' and tonumber(entry.at_ms)
    if at and at < now - 60000 and not looks then
      redis.call('HDEL', KEYS[1], replica)
    else
      if at and at > now and not looks then
        -- The clock was set back, or another server has taken over. Whoever is dead must not live until then.
        text = string.gsub(text, '"at_ms":[^,}]*', '"at_ms":' .. string.format('%.0f', now))
        redis.call('HSET', KEYS[1], replica, text)
      end
      replicas[#replicas + 1] = replica
      replicas[#replicas + 1] = text
    end
  end
end
return { time[1], time[2], epoch, replicas }
