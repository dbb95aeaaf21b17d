-- ARGV: 4 the id, 5 '=' and the order or nothing, 6 when it arrived, 7 head, 8 body, 9 its size, 10 most messages, 11 most
-- bytes, 12 the key of a large body or nothing; then 8 is how large it is.
-- Answers whether it is kept, and whether one became ready.
local id, order, size = ARGV[4], ARGV[5], tonumber(ARGV[9])
local upload = ARGV[12]
local function without(answer)
  if upload ~= '' then call('UNLINK', upload) end
  return answer
end
if call('EXISTS', key(id)) == 1 then return without({1, 0}) end
local bytes = tonumber(call('HGET', COUNTS, 'bytes') or 0)
if call('ZCARD', ALL) >= tonumber(ARGV[10]) or bytes + size > tonumber(ARGV[11]) then return without({0, 0}) end
if upload ~= '' and call('EXISTS', upload) == 0 then return redis.error_reply('ERR the body has not arrived') end
-- The first command that writes is one that a server without memory refuses; then nothing has happened.
local seq = call('HINCRBY', COUNTS, 'seq', 1)
call('HINCRBY', COUNTS, 'bytes', ARGV[9])
call('HSET', key(id), 'seq', seq, 's', 'w', 'e', enter_stream(id), 'p', '', 'n', 0, 'by', '', 'due', '', 'at', ARGV[6],
  'size', ARGV[9], 'head', ARGV[7], upload == '' and 'body' or 'big', ARGV[8])
if upload ~= '' then
  call('RENAME', upload, body(id))
  call('PERSIST', body(id))
end
call('ZADD', ALL, seq, id)
call('ZADD', ARRIVED, ARGV[6], id)
call('SADD', KEYS[2], ARGV[3])
if order == '' then
  stand(get(id))
else
  order = string.sub(order, 2)
  call('HSET', key(id), 'o', order)
  call('ZADD', queue(order), seq, id)
  advance(order)
end
return {1, 1}
