-- ARGV: 4 the only standing or nothing, 5 the id before the first or nothing, 6 its seq if it is known, 7 how many.
-- Answers whether there may be more, the seq of the last one that was looked at, then what was found.
local LOOKED_AT_ONCE = 256
local BYTES_AT_ONCE = 1048576
local only, after, from, most = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local set = only == 'x' and DEAD or ALL

-- One that is not there any more: ids are in the order of arrival, nearly.
local function place_of(id)
  local low, high = 0, call('ZCARD', set)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if call('ZRANGE', set, middle, middle)[1] <= id then low = middle + 1 else high = middle end
  end
  local before = low > 0 and call('ZRANGE', set, low - 1, low - 1, 'WITHSCORES')
  return before and before[2] or '0'
end

if from == '' then from = after == '' and '0' or call('ZSCORE', ALL, after) or place_of(after) end
local ids = call('ZRANGEBYSCORE', set, '(' .. from, '+inf', 'WITHSCORES', 'LIMIT', 0, LOOKED_AT_ONCE)
local answer, bytes, looked = {0, from}, 0, 0
for index = 1, #ids, 2 do
  if #answer - 2 >= most or bytes >= BYTES_AT_ONCE then break end
  looked = looked + 1
  answer[2] = ids[index + 1]
  local seen = view(ids[index])
  if seen and (only == '' or only == seen[2]) then
    answer[#answer + 1] = seen
    bytes = bytes + #seen[7]
  end
end
if looked * 2 < #ids or #ids == LOOKED_AT_ONCE * 2 then answer[1] = 1 end
return answer
