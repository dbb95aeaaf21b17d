-- A page of a space. KEYS: 1 what its entries begin with, 2 the names in order, 3 the names by END.
-- ARGV: 1 the time of day of the gateway, 2 where to begin, 3 how many entries.
-- Answers whether there may be more, the last name that was looked at, then names and values.
local NAMES_AT_ONCE = 256
local BYTES_AT_ONCE = 1048576
local now, most = tonumber(ARGV[1]), tonumber(ARGV[3])
local names = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[2], '+', 'LIMIT', 0, NAMES_AT_ONCE)
local page, bytes, found, seen = {0, ''}, 0, 0, 0
for _, name in ipairs(names) do
  if found == most or bytes > BYTES_AT_ONCE then break end
  seen = seen + 1
  page[2] = name
  local raw = redis.call('GET', KEYS[1] .. name)
  if raw then
    local colon = string.find(raw, ':', 1, true)
    local ends = string.sub(raw, 1, colon - 1)
    if ends == '' or now < tonumber(ends) then
      found = found + 1
      page[#page + 1] = name
      page[#page + 1] = string.sub(raw, colon + 1)
      bytes = bytes + #raw
    end
  else
    redis.call('ZREM', KEYS[2], name)
    redis.call('ZREM', KEYS[3], name)
  end
end
if seen < #names or #names == NAMES_AT_ONCE then page[1] = 1 end
return page
