-- Adds what a replica let through to what all of them owe to rate limits, and tells that.
-- KEYS: a string for each key of a limit: the theoretical arrival time, in microseconds
-- ARGV: microseconds to add and microseconds that may be owed at most, for each
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local answers = {}
for n = 1, #KEYS do
  local key = KEYS[n]
  if not is(key, 'string') then
    answers[n] = 'foreign'
  else
    local known = tonumber(redis.call('GET', key) or '') or 0
    -- What lies further ahead than may be owed was written before the clock was set back.
    local owed = math.min(math.max(known - micros, 0) + tonumber(ARGV[2 * n - 1]), tonumber(ARGV[2 * n]))
    if owed > 0 then
      redis.call('SET', key, string.format('%.0f', micros + owed), 'PX', math.ceil(owed / 1000))
    end
    answers[n] = string.format('%.0f', owed)
  end
end
return answers
