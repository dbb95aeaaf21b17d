local value = read()
if redis.call('DEL', KEYS[1]) == 1 then
  redis.call('ZREM', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  changed()
end
return value or false
