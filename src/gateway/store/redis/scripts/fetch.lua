-- The records or graves of some instances with the time they have left to exist, or flat records; and the time.
-- KEYS: a hash for each; ARGV: fields and bytes that one may have, then the fields to read
local fields = {}
for n = 3, #ARGV do
  fields[#fields + 1] = ARGV[n]
end
local answers = { time }
for n = 1, #KEYS do
  local key = KEYS[n]
  local kind = redis.call('TYPE', key).ok
  local answer
  if kind == 'none' then
    answer = 'absent'
  elseif kind ~= 'hash' then
    answer = 'foreign'
  elseif redis.call('HLEN', key) > tonumber(ARGV[1]) then
    answer = 'large'
  else
    local size = 0
    for _, field in ipairs(fields) do
      size = size + redis.call('HSTRLEN', key, field)
    end
    if size > tonumber(ARGV[2]) then
      answer = 'large'
    else
      answer = redis.call('HMGET', key, unpack(fields))
      answer[#answer + 1] = redis.call('PTTL', key)
    end
  end
  answers[#answers + 1] = answer
end
return answers
