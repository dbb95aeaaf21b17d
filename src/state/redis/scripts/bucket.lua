-- Token buckets. A bucket is "TIME LEVEL SPEED PERIOD CAPACITY LEVEL …": TIME in microseconds of this server's clock; for each
-- rate, the shortest period first, the tokens in use at TIME, how many flow back in a microsecond, and its terms.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local NUMBERS = 4

-- The bucket as it was written, how long ago, and whether that has not come yet: the clock was set back. What is no bucket
-- counts as a full one, and is overwritten: an error would stand for a store that fails, and so concern everybody.
local function read()
  local raw = redis.pcall('GET', KEYS[1])
  if type(raw) ~= 'string' then return {}, 0, false end
  local at, rates, number = nil, {}, 0
  for text in string.gmatch(raw, '%S+') do
    local value = tonumber(text)
    -- Neither infinite nor none.
    if not value or value < 0 or value - value ~= 0 then return {}, 0, false end
    if not at then
      at = value
    else
      local part = number % NUMBERS
      if part == 0 then rates[#rates + 1] = {} end
      rates[#rates][part + 1] = value
      number = number + 1
    end
  end
  if number == 0 or number % NUMBERS ~= 0 then return {}, 0, false end
  return rates, math.max(now - at, 0), at > now
end

local function text(number) return string.format('%.17g', number) end

