local value, ends = read()
if value ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[1], ends .. ':' .. ARGV[4], 'KEEPTTL')
changed()
return 1
