-- clear: delete jobs of one status, a page at a time, until 0 is returned. Active jobs are never deleted.
-- KEYS  jobs       hash  id -> record
--       wait[20]   list  ids by priority
--       levels     zset  priorities in use
--       ghosts     set   ids in a list that were cancelled
--       delayed    zset  id -> due score
--       state      hash  id -> "attempts stalls deferrals"
--       errors     hash  id -> what failed attempts raised
--       progress   hash  id -> last progress
--       dead       zset  id -> time of death, ms
--       cancelled  zset  id -> time of cancellation, ms
--       outcomes   hash  id -> outcome of a completed job
--       kept       zset  id -> expiry of its outcome, ms
--       waiters    hash  id -> inboxes
--       uniques    hash  unique key -> id
--       keyed      hash  id -> unique key
-- ARGV  status  text  waiting, delayed, completed, failed or cancelled
--       limit   int   1..1000
-- USES  tell release ghosts
-- Returns    number deleted; 0 when there is none left
-- Invariant  a deleted id is in no list, and those who wait for it are told
-- Bound      O(limit + ids that are only skipped, at most 100,000)
local sets = {delayed = delayed, completed = kept, failed = dead, cancelled = cancelled}
local gone = {}
if status == 'waiting' then
  local passed = 0
  while #gone == 0 and passed < 100000 do
    local level = redis.call('ZREVRANGE', levels, 0, 0)[1]
    if not level then return 0 end
    local popped = redis.call('LPOP', KEYS[wait + level], limit) or {}
    if redis.call('LLEN', KEYS[wait + level]) == 0 then redis.call('ZREM', levels, level) end
    passed = passed + #popped
    gone = drop_ghosts(ghosts, popped)
  end
  if #gone == 0 then return 0 end
else
  gone = redis.call('ZRANGE', sets[status], 0, limit - 1)
  if #gone == 0 then return 0 end
  redis.call('ZREM', sets[status], unpack(gone))
end
if status == 'completed' then
  redis.call('HDEL', outcomes, unpack(gone))
else
  for _, hash in ipairs({jobs, state, errors, progress}) do redis.call('HDEL', hash, unpack(gone)) end
  release(uniques, keyed, gone)
end
tell(waiters, gone, 'missing')
return #gone
