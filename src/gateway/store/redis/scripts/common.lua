-- What several of the scripts need; it comes before each of them.
-- The time in Redis, and in milliseconds.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
-- Whether a key is of this type, or nothing yet.
local function is(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end
-- Of a record with a version that nobody gives it cannot be told what is newer: it is damaged, and left alone.
local function is_damaged(version)
  local last = string.format('%020.0f', (now + 100 * 365 * 86400000) * 1024000)
  return #version ~= 20 or string.find(version, '%D') or version > last
end
-- Puts a record or a grave in its place and into the index, for so many milliseconds. What was there before goes, whatever it was.
-- KEYS and ARGV begin alike: record, index of the service, vx:names; service, id.
local function keep(lives, entry, ...)
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], ...)
  redis.call('PEXPIRE', KEYS[1], lives)
  redis.call('HSET', KEYS[2], ARGV[2], entry)
  redis.call('SADD', KEYS[3], ARGV[1])
end
-- Tells the other replicas. When what that needs is not ours, they find out by comparing: false. What Redis refuses to all: the
-- error, before anything was written.
local function tell(seq, events, kept, ...)
  if not (is(seq, 'string') and is(events, 'stream')) then
    return false
  end
  local answer = redis.pcall('INCR', seq)
  if type(answer) == 'number' then
    answer = redis.pcall('XADD', events, 'MAXLEN', '~', kept, '*', 'n', answer, ...)
  end
  if type(answer) == 'table' and answer.err then
    return false, not string.find(answer.err, '^%-?ERR ') and answer
  end
  return true
end
