-- The indexes of some services, and the time. Large ones are read in parts: Redis serves nobody else meanwhile.
-- KEYS: an index for each; ARGV: how many entries all may have together, '' or where the part begins, then the services
local answers, room = { time }, tonumber(ARGV[1])
for n = 1, #KEYS do
  local kind = redis.call('TYPE', KEYS[n]).ok
  local answer
  if kind == 'none' then
    answer = { '' }
  elseif kind ~= 'hash' then
    answer = 'foreign'
  elseif ARGV[2] == '' and redis.call('HLEN', KEYS[n]) > room then
    answer = 'large'
  else
    local next = ''
    if ARGV[2] == '' then
      answer = redis.call('HGETALL', KEYS[n])
    else
      local part = redis.call('HSCAN', KEYS[n], ARGV[2], 'COUNT', ARGV[1])
      next, answer = part[1], part[2]
    end
    room = room - #answer / 2
    -- Of a record that is gone (evicted, or long expired) the index must not pretend that it is there.
    for m = 2, #answer, 2 do
      local key = 'services:' .. ARGV[n + 2] .. ':i:' .. answer[m - 1]
      if #answer[m - 1] > 128 or #answer[m] > 64 then
        answer[m - 1], answer[m] = '', ''
      elseif string.sub(answer[m], 1, 1) == 'r' and redis.call('EXISTS', key) == 0 then
        answer[m] = '-' .. answer[m]
      end
    end
    answer[#answer + 1] = next
  end
  answers[#answers + 1] = answer
end
return answers
