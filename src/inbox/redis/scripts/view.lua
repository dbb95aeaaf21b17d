-- How one stands, as operators see it: id, standing, attempts, due or nothing, whether something went wrong, that, head.
local time = clock()
local function view(id)
  local f = call('HMGET', key(id), 's', 'n', 'due', 'why', 'head')
  if not f[1] then return nil end
  local s, due = f[1], ''
  if s == 'd' and tonumber(f[3]) > now then
    due = f[3]
  elseif s == 'c' then
    local till = tonumber(call('ZSCORE', LEASES, id) or 0)
    if till > time then due = whole(now + till - time) else s = 'r' end
  elseif s ~= 'x' then
    s = 'r'
  end
  return {id, s, f[2], due, f[4] and 1 or 0, f[4] or '', f[5]}
end

