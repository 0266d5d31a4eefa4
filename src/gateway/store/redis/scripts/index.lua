-- The indexes of some services, and the time.
-- KEYS: an index for each; ARGV: how many entries one may have
local answers = { redis.call('TIME') }
for n = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[n]).ok
  local answer
  if kind == 'none' then
    answer = {}
  elseif kind ~= 'hash' then
    answer = 'foreign'
  elseif redis.call('HLEN', KEYS[n]) > tonumber(ARGV[1]) then
    answer = 'large'
  else
    answer = redis.call('HGETALL', KEYS[n])
  end
  answers[#answers + 1] = answer
end
return answers
