-- Says that a replica lives, forgets those that have not said so for a minute, and tells the time.
-- KEYS: vx:replicas, vx:epoch
-- ARGV: replica, its description without the closing brace ('' takes it out), a new epoch
local function is(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- What is not ours is left alone; nobody else is known then, and a flush not noticed by this.
local epoch = 'foreign'
if is(KEYS[2], 'string') then
  redis.call('SET', KEYS[2], ARGV[3], 'NX')
  epoch = redis.call('GET', KEYS[2])
end
if not is(KEYS[1], 'hash') then
  return { time[1], time[2], epoch, 'foreign' }
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ',"at_ms":' .. string.format('%.0f', now) .. '}')
end
local replicas = {}
if redis.call('HLEN', KEYS[1]) <= 1000 then
  local all = redis.call('HGETALL', KEYS[1])
  for n = 1, #all, 2 do
    local ok, entry = pcall(cjson.decode, all[n + 1])
    local at = ok and type(entry) == 'table' and tonumber(entry.at_ms)
    if at and at < now - 60000 then
      redis.call('HDEL', KEYS[1], all[n])
    elseif at then
      replicas[#replicas + 1] = all[n]
      replicas[#replicas + 1] = all[n + 1]
    end
  end
end
return { time[1], time[2], epoch, replicas }
