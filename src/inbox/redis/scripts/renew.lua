-- ARGV: 4 the gateway, 5 the id, 6 the attempt, 7 the lease in milliseconds. Answers whether it is held.
local m = get(ARGV[5])
if not m or m.by ~= ARGV[4] or m.n ~= ARGV[6] or (m.s ~= 'c' and m.s ~= 'r') then return 0 end
without_memory()
leave(m)
call('HSET', key(m.id), 's', 'c')
call('ZADD', LEASES, whole(clock() + tonumber(ARGV[7])), m.id)
-- For those who look at the group; nothing depends on it.
redis.pcall('XCLAIM', STREAM, GROUP, ARGV[4], 0, m.e, 'IDLE', 0, 'RETRYCOUNT', m.n, 'JUSTID')
return 1
