-- cancel: cancel a job that waits, or ask the worker that runs it to stop it.
-- KEYS  jobs       hash  id -> record
--       ghosts     set   ids in a list that were cancelled
--       delayed    zset  id -> due score
--       held       hash  id -> hold
--       dead       zset  id -> time of death, ms
--       cancelled  zset  id -> time of cancellation, ms
--       cancels    set   ids of active jobs to cancel
--       waiters    hash  id -> inboxes
--       uniques    hash  unique key -> id
--       keyed      hash  id -> unique key
--       state      hash  id -> "attempts stalls deferrals"
--       errors     hash  id -> what failed attempts raised
--       progress   hash  id -> last progress
-- ARGV  id          text
--       channel     text  control channel of the queue
--       keep_count  int   cancelled jobs kept at most
--       keep_ms     int   time that they are kept
-- USES  now tell release trim
-- Returns    cancelled, asked (it runs), or the status that it already had: failed, cancelled, missing
-- Invariant  a waiting job becomes a ghost and is never reserved; an active job stays with its worker
-- Bound      O(log jobs), and 100 old cancelled jobs dropped
if redis.call('HEXISTS', jobs, id) == 0 then return 'missing' end
if redis.call('ZSCORE', cancelled, id) then return 'cancelled' end
if redis.call('ZSCORE', dead, id) then return 'failed' end
if redis.call('HEXISTS', held, id) == 1 then
  redis.call('SADD', cancels, id)
  redis.call('PUBLISH', channel, 'cancel ' .. id)
  return 'asked'
end
local now = now_ms()
if redis.call('ZREM', delayed, id) == 0 then redis.call('SADD', ghosts, id) end
redis.call('ZADD', cancelled, now, id)
release(uniques, keyed, {id})
tell(waiters, {id}, 'cancelled')
trim(cancelled, tonumber(keep_count), now - keep_ms, 100, {jobs, state, errors, progress})
return 'cancelled'
