-- ARGV: 4 the gateway, 5 the id, 6 the attempt, 7 how it ends, 8 when it is due, 9 what went wrong.
-- Answers whether the claim was held, and whether one became ready.
local m, ending = get(ARGV[5]), ARGV[7]
if not m or m.by ~= ARGV[4] or m.n ~= ARGV[6] then return {0, 0} end
without_memory()
if ending == 'delivered' then
  retire(m)
  erase(m)
  return {1, readied}
end
if ending == 'dead' then
  retire(m)
  call('HSET', key(m.id), 's', 'x', 'e', '', 'p', '', 'by', '', 'due', '', 'why', ARGV[9])
  call('ZADD', DEAD, m.seq, m.id)
  return {1, readied}
end
call('HSET', key(m.id), 'by', '')
if ending == 'returned' then
  call('HINCRBY', key(m.id), 'n', -1)
  rejoin(m)
else
  delay(m, ARGV[8])
  call('HSET', key(m.id), 'due', ARGV[8], 'why', ARGV[9])
end
return {1, readied}
