local used, _, ends = count()
if not used then return NO_COUNTER end
if ends then
  local left = string.format('%.0f', math.max(used - tonumber(ARGV[3]), 0))
  redis.call('SET', KEYS[1], ends .. ':' .. left, 'KEEPTTL')
end
return 1
