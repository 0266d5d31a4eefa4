-- Moves the ends of leases, and tells the other replicas of those that moved.
-- KEYS: vx:renewals, then one record for each renewal
-- ARGV: by, renewals kept, then service, id, version, holder, left ms, ttl ms for each renewal
local by, answers, moved = ARGV[1], {}, {}
for n = 2, #KEYS do
  local at = 3 + (n - 2) * 6
  local key, service, id, version, holder, left = KEYS[n], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local answer = 'renewed'
  if not is(key, 'hash') then
    answer = 'foreign'
  else
    local known = redis.call('HMGET', key, 'v', 'gone', 'until')
    if known[1] and is_damaged(known[1]) then
      answer = 'foreign'
    elseif not known[1] or known[1] < version then
      answer = 'absent'
    elseif known[2] then
      answer = 'gone'
    elseif known[1] > version then
      answer = 'newer'
    else
      local until_ms = now + tonumber(left)
      local ends = tonumber(known[3] or '') or 0
      -- What ends later than any lease of it was written before the clock was set back.
      if until_ms > ends or ends > now + tonumber(ARGV[at + 5]) + 1000 then
        redis.call('HSET', key, 'until', string.format('%.0f', until_ms), 'holder', holder)
        redis.call('PEXPIRE', key, tonumber(left) + 24 * 3600 * 1000)
      end
    end
  end
  -- Of what cannot be kept here the others hear all the same.
  if answer == 'renewed' or answer == 'foreign' then
    moved[#moved + 1] = '["' .. service .. '","' .. id .. '","' .. version .. '",' .. left .. ']'
  end
  answers[#answers + 1] = answer
end
if #moved > 0 and is(KEYS[1], 'stream') then
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 't', string.format('%.0f', now), 'by', by, 'r', '[' .. table.concat(moved, ',') .. ']')
end
return answers
