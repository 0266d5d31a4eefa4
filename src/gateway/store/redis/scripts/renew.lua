-- Moves the ends of leases, and tells the other replicas of those that moved.
-- KEYS: vx:renewals, then one record for each renewal
-- ARGV: by, renewals kept, then service, id, version, holder, left ms for each renewal
local function is(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end
local by, answers, moved = ARGV[1], {}, {}
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for n = 2, #KEYS do
  local at = 3 + (n - 2) * 5
  local key, service, id, version, holder, left = KEYS[n], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local answer = 'renewed'
  if not is(key, 'hash') then
    answer = 'foreign'
  else
    local known = redis.call('HMGET', key, 'v', 'gone', 'until')
    if not known[1] or known[1] < version then
      answer = 'absent'
    elseif known[2] then
      answer = 'gone'
    elseif known[1] > version then
      answer = 'newer'
    else
      local until_ms = now + tonumber(left)
      if until_ms > (tonumber(known[3] or '') or 0) then
        redis.call('HSET', key, 'until', string.format('%.0f', until_ms), 'holder', holder)
        redis.call('PEXPIRE', key, tonumber(left) + 24 * 3600 * 1000)
      end
      moved[#moved + 1] = '["' .. service .. '","' .. id .. '","' .. version .. '",' .. left .. ']'
    end
  end
  answers[#answers + 1] = answer
end
if #moved > 0 and is(KEYS[1], 'stream') then
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'by', by, 'r', '[' .. table.concat(moved, ',') .. ']')
end
return answers
