-- renew: extend the lease of one worker, whatever the number of jobs it holds.
-- KEYS  leases    zset  worker -> deadline, ms
-- ARGV  worker    text
--       lease_ms  int   1000..600000
-- USES  now
-- Returns    {status, now}; status -1: the lease had run out or was reclaimed
-- Invariant  a deadline only grows; a lease that ran out is never revived
-- Bound      O(log workers)
local now = now_ms()
local mine = redis.call('ZSCORE', leases, worker)
if not mine or tonumber(mine) < now then return {-1, now} end
redis.call('ZADD', leases, now + lease_ms, worker)
return {0, now}
