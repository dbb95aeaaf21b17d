-- ARGV: 3 least, 4 most, 5 limit, 6 END of a new counter.
local used, text, ends = count()
if not used then return NO_COUNTER end
local got = math.min(math.max(tonumber(ARGV[5]) - used, 0), tonumber(ARGV[4]))
if got < tonumber(ARGV[3]) then got = 0 end
if got == 0 then return {'0', text} end
text = string.format('%.0f', used + got)
if ends then
  redis.call('SET', KEYS[1], ends .. ':' .. text, 'KEEPTTL')
else
  write(text, ARGV[6])
end
return {string.format('%.0f', got), text}
