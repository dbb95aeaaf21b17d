-- Answers how many are ready, delayed, claimed and dead, the bytes of all, and when the oldest arrived that is not dead.
local delayed = call('ZCOUNT', DELAYED, '(' .. whole(now), '+inf')
local claimed = call('ZCOUNT', LEASES, '(' .. whole(clock()), '+inf')
local dead, live = call('ZCARD', DEAD), call('ZCARD', ARRIVED)
local oldest = call('ZRANGE', ARRIVED, 0, 0, 'WITHSCORES')[2]
local bytes = tonumber(call('HGET', COUNTS, 'bytes') or 0)
return {math.max(live - delayed - claimed, 0), delayed, claimed, dead, bytes, oldest or false}
