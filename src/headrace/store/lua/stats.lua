-- stats: count the jobs of a queue by status and read its totals.
-- KEYS  jobs       hash  id -> record
--       wait[20]   list  ids by priority
--       ghosts     set   ids in a list that were cancelled
--       delayed    zset  id -> due score
--       held       hash  id -> hold
--       dead       zset  id -> time of death, ms
--       cancelled  zset  id -> time of cancellation, ms
--       kept       zset  id -> expiry of its outcome, ms
--       leases     zset  worker -> deadline, ms
--       meta       hash  fence, paused, totals
-- ARGV  full       int   0..1: 1 with the counts of the last minutes, 0 with the totals alone
-- USES  now
-- Returns    {now, waiting, delayed, active, dead, cancelled, kept, workers, age of the oldest waiting job ms, meta ...}
-- Invariant  changes nothing
-- Bound      O(1), and 1,000 ids a priority while there are ghosts; meta has at most 500 fields
local now = now_ms()
-- Why: who asks for all queues at once, as monitoring does, counts minutes by itself; they are most of the reply.
local function totals()
  if full == '1' then return redis.call('HGETALL', meta) end
  local names, found = {'completed', 'failed', 'retried', 'stalled', 'spent_ms', 'paused'}, {}
  for i, value in ipairs(redis.call('HMGET', meta, unpack(names))) do
    if value then
      found[#found + 1] = names[i]
      found[#found + 1] = value
    end
  end
  return found
end
local waiting, oldest, haunted = 0, 0, redis.call('SCARD', ghosts)
-- Why: a cancelled job keeps its place in the list until it comes up; it waits for nothing.
local function first_waiting(list)
  if haunted == 0 then return redis.call('LINDEX', list, 0) end
  local ids = redis.call('LRANGE', list, 0, 999)
  local marks = redis.call('SMISMEMBER', ghosts, unpack(ids))
  for i = 1, #ids do
    if marks[i] == 0 then return ids[i] end
  end
  return false
end
for level = 1, 20 do
  local list = KEYS[wait + level]
  local length = redis.call('LLEN', list)
  waiting = waiting + length
  if length > 0 then
    local id = first_waiting(list)
    local record = id and redis.call('HGET', jobs, id)
    if record and #record >= 8 then
      local _, _, stamp = struct.unpack('>BBI6', record)
      oldest = math.max(oldest, now - stamp)
    end
  end
end
return {
  now, waiting - haunted, redis.call('ZCARD', delayed), math.max(0, redis.call('HLEN', held) - 1),
  redis.call('ZCARD', dead), redis.call('ZCARD', cancelled), redis.call('ZCARD', kept), redis.call('ZCARD', leases),
  oldest, totals(),
}
