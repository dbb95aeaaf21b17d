-- ARGV: 4 the id. Answers whether it is ready, and whether one became so.
local m = get(ARGV[4])
if not m or is_held(m) then return {0, 0} end
without_memory()
call('HSET', key(m.id), 'n', 0, 'by', '', 'due', '')
if m.s == 'x' then
  m.e, m.p = enter_stream(m.id), '1'
  -- It is pending at once, so that it can be claimed before those that are in the stream already.
  call('XCLAIM', STREAM, GROUP, 'replay', 0, m.e, 'FORCE', 'JUSTID')
  call('HSET', key(m.id), 'e', m.e, 'p', m.p)
  call('ZADD', ARRIVED, call('HGET', key(m.id), 'at'), m.id)
  if m.o then call('ZADD', queue(m.o), m.seq, m.id) end
end
rejoin(m)
return {1, readied}
