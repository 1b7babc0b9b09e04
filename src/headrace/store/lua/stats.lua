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
-- ARGV
-- USES  now
-- Returns    {now, waiting, delayed, active, dead, cancelled, kept, workers, age of the oldest waiting job ms, meta ...}
-- Invariant  changes nothing
-- Bound      O(1); meta has at most 500 fields
local now = now_ms()
local waiting, oldest = 0, 0
for level = 1, 20 do
  local list = KEYS[wait + level]
  local length = redis.call('LLEN', list)
  waiting = waiting + length
  if length > 0 then
    local id = redis.call('LINDEX', list, 0)
    local record = redis.call('HGET', jobs, id)
    if record and #record >= 8 then
      local _, _, stamp = struct.unpack('>BBI6', record)
      oldest = math.max(oldest, now - stamp)
    end
  end
end
return {
  now, waiting - redis.call('SCARD', ghosts), redis.call('ZCARD', delayed), redis.call('HLEN', held),
  redis.call('ZCARD', dead), redis.call('ZCARD', cancelled), redis.call('ZCARD', kept), redis.call('ZCARD', leases),
  oldest, redis.call('HGETALL', meta),
}
