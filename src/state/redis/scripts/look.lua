-- ARGV: 1 whether to fill it. Answers the largest share of a capacity that is in use, then for each rate its level and its
-- terms; nothing when nothing is in use.
local rates, elapsed = read()
if ARGV[1] == '1' then redis.call('DEL', KEYS[1]) end
local share, answer = 0, {'0'}
for _, rate in ipairs(rates) do
  local level = math.max(rate[1] - elapsed * rate[2], 0)
  share = math.max(share, level / rate[4])
  answer[#answer + 1] = text(level)
  for part = 2, NUMBERS do answer[#answer + 1] = text(rate[part]) end
end
if share == 0 then return {} end
answer[1] = text(share)
return answer
