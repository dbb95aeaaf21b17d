-- One inbox. Its messages:
--   BASE/m/ID      hash: seq (the order they were stored in), s (where it stands), e (its entry in the stream), p ('1' when
--                  that was read), n (attempts), by (whose claim the last one was), due, why, o (its order), at (when it
--                  arrived), size, head, body; instead of that of a large one, big: it is BASE/b/ID
--   BASE/u/RANDOM  a large body before its message, for two minutes
--   BASE/stream    their ids, except of dead ones; what was read and not settled is pending in the group
--   BASE/all, BASE/dead by seq; BASE/arrived those that are not dead, by at; BASE/counts seq, bytes, read
--   BASE/again     pending ones that can be claimed, by seq; BASE/delayed by due; BASE/leases claimed ones, by their end
--   BASE/o/ORDER   those of an order that are not dead, by seq; BASE/heads the one of each that is ready or claimed
-- Where one stands: 'r' it can be claimed: in `again`, or not yet read; 'w' it waits for one before it in its order;
-- 'd' delayed; 'c' claimed; 'x' dead.
-- KEYS: 1 BASE, 2 the names of inboxes. ARGV: 1 the time of day of the gateway, 2 a time that replaces the server's, 3 the
-- name of the inbox.
local base, now = KEYS[1], tonumber(ARGV[1])
local STREAM, GROUP, COUNTS, ALL, ARRIVED = base .. '/stream', 'gateways', base .. '/counts', base .. '/all', base .. '/arrived'
local AGAIN, DELAYED, LEASES, DEAD = base .. '/again', base .. '/delayed', base .. '/leases', base .. '/dead'
local HEADS = base .. '/heads'
local call = redis.call

-- What is stored comes off the server by being delivered: this is a write that a server without memory takes, and then it
-- takes those behind it in the same script.
local function without_memory() call('DEL', base .. '/none') end

-- Whether one became ready, or due at another time.
local readied = 0

local function key(id) return base .. '/m/' .. id end
local function body(id) return base .. '/b/' .. id end
local function queue(order) return base .. '/o/' .. order end
local function whole(number) return string.format('%.0f', number) end

-- Leases are judged by one clock, the server's.
local function clock()
  if ARGV[2] ~= '' then return tonumber(ARGV[2]) end
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function get(id)
  local f = call('HMGET', key(id), 'seq', 's', 'e', 'p', 'n', 'by', 'o', 'size', 'big')
  if not f[1] then return nil end
  return {id = id, seq = f[1], s = f[2], e = f[3], p = f[4], n = f[5], by = f[6], o = f[7], size = tonumber(f[8]), big = f[9]}
end

-- Takes one from where it stands.
local function leave(m)
  if m.s == 'r' then call('ZREM', AGAIN, m.id)
  elseif m.s == 'd' then call('ZREM', DELAYED, m.id)
  elseif m.s == 'c' then call('ZREM', LEASES, m.id)
  elseif m.s == 'x' then call('ZREM', DEAD, m.id) end
  m.s = 'w'
  call('HSET', key(m.id), 's', 'w')
end

-- Makes one ready.
local function stand(m)
  call('HSET', key(m.id), 's', 'r')
  if m.p == '1' then call('ZADD', AGAIN, m.seq, m.id) end
  readied = 1
end

-- Makes the first of an order ready, unless another one of it is claimed. Nobody overtakes one that is delayed.
local function advance(order)
  local id, head = call('ZRANGE', queue(order), 0, 0)[1], call('HGET', HEADS, order)
  if not id or id == head then return end
  local first, other = get(id), head and get(head)
  if not first or first.s ~= 'w' or (other and other.s == 'c') then return end
  if other then leave(other) end
  call('HSET', HEADS, order, id)
  stand(first)
end

-- One does not stand for its order any more.
local function yield(m)
  if m.o and call('HGET', HEADS, m.o) == m.id then call('HDEL', HEADS, m.o) end
end

-- Makes one ready that was claimed, delayed or dead, or lets it wait for its turn.
local function rejoin(m)
  leave(m)
  if not m.o then return stand(m) end
  yield(m)
  advance(m.o)
end

-- Delays one that was claimed.
local function delay(m, due)
  leave(m)
  call('HSET', key(m.id), 's', 'd')
  call('ZADD', DELAYED, due, m.id)
  readied = 1
  yield(m)
  if m.o then advance(m.o) end
end

local function enter_stream(id)
  if call('EXISTS', STREAM) == 0 then call('XGROUP', 'CREATE', STREAM, GROUP, '0', 'MKSTREAM') end
  return call('XADD', STREAM, '*', 'id', id)
end

-- Takes one out of all in which it stands while it is not dead.
local function retire(m)
  leave(m)
  call('XACK', STREAM, GROUP, m.e)
  call('XDEL', STREAM, m.e)
  if call('ZREM', ARRIVED, m.id) == 1 and call('ZCARD', ARRIVED) == 0 then
    -- With it go the names of gateways that are no more.
    call('DEL', STREAM)
    call('HDEL', COUNTS, 'read')
  end
  if m.o then
    call('ZREM', queue(m.o), m.id)
    yield(m)
    advance(m.o)
  end
end

-- Removes one that stands nowhere any more.
local function erase(m)
  call('DEL', key(m.id))
  if m.big then call('UNLINK', body(m.id)) end
  call('ZREM', ALL, m.id)
  call('HINCRBY', COUNTS, 'bytes', -m.size)
  if call('ZCARD', ALL) == 0 then
    call('DEL', COUNTS)
    call('SREM', KEYS[2], ARGV[3])
  end
end

-- Whether a worker has it whose claim has not run out.
local function is_held(m)
  if m.s ~= 'c' then return false end
  local till = call('ZSCORE', LEASES, m.id)
  return till and tonumber(till) > clock()
end

