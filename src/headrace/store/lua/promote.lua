-- promote: move jobs that are due to their lists, and wake a worker for jobs that wait without one.
-- KEYS  wait[20]  list  ids by priority
--       levels    zset  priorities in use
--       delayed   zset  id -> due score
--       leases    zset  worker -> deadline, ms
--       wake      list  token for an idle worker
-- ARGV
-- USES  now wake place promote
-- Returns    {number moved, now, next due ms or 0, next lease deadline ms or 0, 1 when jobs wait}
-- Invariant  a job is in `delayed` or in one list, never both
-- Bound      1000 jobs
local now = now_ms()
local moved = promote_due(now, delayed, wait, levels)
local waiting = redis.call('ZCARD', levels) > 0
if waiting then wake_one(wake) end
local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
local lease = redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES')
return {moved, now, head[2] and math.floor(tonumber(head[2]) / 32) or 0, lease[2] and tonumber(lease[2]) or 0, waiting and 1 or 0}
