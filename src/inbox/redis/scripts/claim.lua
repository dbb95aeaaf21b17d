-- ARGV: 4 the gateway, 5 most messages, 6 the lease in milliseconds.
-- Answers in how many milliseconds there may be more (-1: nobody knows), then id, attempt, head and body of each;
-- of a large body how large it is.
local gateway, most, lease = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
-- What one call does at most, so that it delays nobody for long.
local MOVED_AT_ONCE = 128
local SKIPPED_AT_ONCE = 128
local BYTES_AT_ONCE = 1048576

without_memory()
local time = clock()
local function all_of(set, before)
  local ids = call('ZRANGEBYSCORE', set, '-inf', whole(before), 'LIMIT', 0, MOVED_AT_ONCE)
  for _, id in ipairs(ids) do
    local m = get(id)
    if m then rejoin(m) else call('ZREM', set, id) end
  end
end
all_of(LEASES, time)
all_of(DELAYED, now)

local bytes, picked, again, next_again = 0, {}, {}, 1
if most > 0 then again = call('ZRANGE', AGAIN, 0, most - 1, 'WITHSCORES') end
local function is_full() return #picked >= most or bytes >= BYTES_AT_ONCE end
local function pick(m)
  picked[#picked + 1] = m
  bytes = bytes + m.size
end
-- Those of `again` that were stored before this one.
local function pick_again(before)
  while not is_full() and again[next_again] and tonumber(again[next_again + 1]) < before do
    local m = get(again[next_again])
    if m then pick(m) else call('ZREM', AGAIN, again[next_again]) end
    next_again = next_again + 2
  end
end

-- Both are in the order they were stored, and are read like one.
local read, last, gone = 0, call('HGET', COUNTS, 'read') or '0', {}
local entries = call('XRANGE', STREAM, '(' .. last, '+', 'COUNT', most + SKIPPED_AT_ONCE)
for _, entry in ipairs(entries) do
  local m = get(entry[2][2])
  local is_new = m and m.s == 'r' and m.p == '' and m.e == entry[1]
  if is_new then pick_again(tonumber(m.seq)) end
  if is_full() then break end
  read, last = read + 1, entry[1]
  if is_new then
    pick(m)
  elseif not m or m.e ~= last then
    gone[#gone + 1] = last
  end
  if m then call('HSET', key(m.id), 'p', '1') end
end
if read > 0 then
  call('XREADGROUP', 'GROUP', GROUP, gateway, 'COUNT', read, 'STREAMS', STREAM, '>')
  call('HSET', COUNTS, 'read', last)
  if #gone > 0 then
    call('XACK', STREAM, GROUP, unpack(gone))
    call('XDEL', STREAM, unpack(gone))
  end
end
pick_again(math.huge)

local answer = {-1}
for _, m in ipairs(picked) do
  local attempt = call('HINCRBY', key(m.id), 'n', 1)
  call('ZREM', AGAIN, m.id)
  call('HSET', key(m.id), 's', 'c', 'by', gateway, 'due', '')
  call('ZADD', LEASES, whole(time + lease), m.id)
  -- For those who look at the group; nothing depends on it.
  redis.pcall('XCLAIM', STREAM, GROUP, gateway, 0, m.e, 'RETRYCOUNT', attempt, 'JUSTID')
  local text = call('HMGET', key(m.id), 'head', 'body')
  answer[#answer + 1] = {m.id, attempt, text[1], m.big and tonumber(m.big) or text[2]}
end

local function wait(set, from)
  local first = call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
  if not first then return end
  local left = math.max(tonumber(first) - from, 0)
  if answer[1] < 0 or left < answer[1] then answer[1] = left end
end
wait(LEASES, time)
wait(DELAYED, now)
local is_more = read < #entries or #entries == most + SKIPPED_AT_ONCE or call('ZCARD', AGAIN) > 0
if #picked < most and is_more then answer[1] = 0 end
return answer
