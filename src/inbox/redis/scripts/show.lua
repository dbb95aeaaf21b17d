-- ARGV: 4 the id. Answers how it stands, with its body behind, or how large it is.
local seen = view(ARGV[4])
if not seen then return false end
local text = call('HMGET', key(ARGV[4]), 'body', 'big')
seen[#seen + 1] = text[2] and tonumber(text[2]) or text[1]
return seen
