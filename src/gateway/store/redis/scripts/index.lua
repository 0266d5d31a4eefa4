-- The indexes of some services, and the time.
-- KEYS: an index for each; ARGV: how many entries one may have, then the services
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
    -- Of a record that is gone (evicted, or long expired) the index must not pretend that it is there.
    for m = 2, #answer, 2 do
      local key = 'services:' .. ARGV[n + 1] .. ':i:' .. answer[m - 1]
      if string.sub(answer[m], 1, 1) == 'r' and redis.call('EXISTS', key) == 0 then
        answer[m] = '-' .. answer[m]
      end
    end
  end
  answers[#answers + 1] = answer
end
return answers
