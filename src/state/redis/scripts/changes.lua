-- What changed in a space. KEYS: 1 what changed. ARGV: 1 the mark of the last time, 2 most names.
-- Answers the new mark, whether the names are all there were, then the names.
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local mark, since, most = last and last[1] or '', ARGV[1], tonumber(ARGV[2])
if mark == since then return {mark, 1} end
if mark == '' or since == '' or #redis.call('XRANGE', KEYS[1], since, since) == 0 then return {mark, 0} end
local entries = redis.call('XRANGE', KEYS[1], '(' .. since, '+', 'COUNT', most + 1)
if #entries > most then return {mark, 0} end
local answer = {mark, 1}
for _, entry in ipairs(entries) do answer[#answer + 1] = entry[2][2] end
return answer
