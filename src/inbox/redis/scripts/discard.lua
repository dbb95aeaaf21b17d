-- ARGV: 4 the id. Answers whether it was removed, and whether one became ready.
local m = get(ARGV[4])
if not m or is_held(m) then return {0, 0} end
without_memory()
if m.s == 'x' then leave(m) else retire(m) end
erase(m)
return {1, readied}
