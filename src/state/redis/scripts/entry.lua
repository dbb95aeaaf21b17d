-- Entries of the store. An entry is "END:VALUE": END in milliseconds since 1970, empty for one that never ends.
-- KEYS: 1 the entry, 2 the names of the space in order, 3 the names by END, 4 what changed.
-- ARGV: 1 the time of day of the gateway, 2 the name of the entry.
local now, name = tonumber(ARGV[1]), ARGV[2]

-- How much longer than its END an entry is kept: clocks of gateways differ. In milliseconds.
local SLACK = 60000
-- What ends later than in a hundred years never does.
local TTL_MAX = 3155760000000
local SWEPT_AT_ONCE = 16
local CHANGES_KEPT = 4096
local CHANGES_SECONDS = 86400

-- The value and END of an entry that has not ended.
local function read()
  local raw = redis.call('GET', KEYS[1])
  if not raw then return nil end
  local colon = string.find(raw, ':', 1, true)
  local ends = string.sub(raw, 1, colon - 1)
  if ends ~= '' and tonumber(ends) <= now then return nil end
  return string.sub(raw, colon + 1), ends
end

local function changed()
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', CHANGES_KEPT, '*', 'k', name)
  redis.call('EXPIRE', KEYS[4], CHANGES_SECONDS)
end

-- Removes what the server removed by itself or may remove from the lists of names. Both clocks must agree that it is time:
-- a gateway whose clock is ahead takes nothing from the others.
local function sweep()
  local time = redis.call('TIME')
  local before = math.min(now, time[1] * 1000) - SLACK
  local ended = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', string.format('(%.0f', before), 'LIMIT', 0, SWEPT_AT_ONCE)
  local own = string.len(KEYS[1]) - string.len(name)
  for _, old in ipairs(ended) do
    redis.call('DEL', string.sub(KEYS[1], 1, own) .. old)
    redis.call('ZREM', KEYS[2], old)
    redis.call('ZREM', KEYS[3], old)
  end
end

local function write(value, ends)
  sweep()
  redis.call('ZADD', KEYS[2], 0, name)
  local raw = ends .. ':' .. value
  local ttl = ends ~= '' and math.max(tonumber(ends) - now, 0) + SLACK or TTL_MAX
  if ttl < TTL_MAX then
    redis.call('SET', KEYS[1], raw, 'PX', string.format('%.0f', ttl))
    redis.call('ZADD', KEYS[3], ends, name)
  else
    redis.call('SET', KEYS[1], raw)
    redis.call('ZREM', KEYS[3], name)
  end
end

-- A counter: its number, its text and its END.
local function count()
  local value, ends = read()
  if not value then return 0, '0', nil end
  if not string.find(value, '^%d+$') then return nil end
  return tonumber(value), value, ends
end
local NO_COUNTER = redis.error_reply('ERR an entry is no counter')

