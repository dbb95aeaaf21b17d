-- exchange
local value = read()
if value ~= ARGV[3] then return 0 end
write(ARGV[4], ARGV[5])
changed()
return 1
