-- ARGV: 1 least, 2 most, then for each rate: tokens in a microsecond, period, capacity.
-- Answers whether it is admitted, how many tokens were taken, then the level of each rate.
-- How long a bucket is kept after it is full again, in milliseconds.
local SLACK = 1000
-- A bucket that is not full for a hundred years is kept for so long.
local TTL_MAX = 3155760000000
-- What arithmetic may lose.
local TOLERANCE = 0.000001
local least, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local before, elapsed, ahead = read()

-- What of a rate is in use: by the rate of its period, or else by the next shorter one, or else by the next longer one.
local function carried_over(speed, period, capacity)
  local nearest = before[1]
  for _, rate in ipairs(before) do
    if rate[3] == period then return math.max(rate[1] - elapsed * math.max(speed, rate[2]), 0) end
    if rate[3] < period then nearest = rate end
  end
  if not nearest then return 0 end
  return math.max(math.min(nearest[1], capacity) - elapsed * speed, 0)
end

local rates, there = {}, math.huge
for i = 3, #ARGV, 3 do
  local speed, period, capacity = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local level = carried_over(speed, period, capacity)
  rates[#rates + 1] = {level, speed, period, capacity}
  there = math.min(there, capacity - level)
end
local admitted = there + TOLERANCE >= least
local got = 0
if admitted then
  got = most > least and math.max(math.floor(math.min(most, there + TOLERANCE)), least) or least
end
-- A refusal changes nothing, but for a time that would never come.
if got > 0 or ahead then
  local ttl, parts = 0, {string.format('%.0f', now)}
  for _, rate in ipairs(rates) do
    rate[1] = rate[1] + got
    ttl = math.max(ttl, rate[1] / rate[2] / 1000)
    for part = 1, NUMBERS do parts[#parts + 1] = text(rate[part]) end
  end
  ttl = string.format('%.0f', math.min(math.ceil(ttl) + SLACK, TTL_MAX))
  redis.call('SET', KEYS[1], table.concat(parts, ' '), 'PX', ttl)
end
local answer = {admitted and 1 or 0, text(got)}
for _, rate in ipairs(rates) do answer[#answer + 1] = text(rate[1]) end
return answer
