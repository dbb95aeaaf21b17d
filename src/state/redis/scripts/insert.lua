if read() then return 0 end
write(ARGV[3], ARGV[4])
changed()
return 1
