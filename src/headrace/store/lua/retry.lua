-- retry: put dead or cancelled jobs back in their lists with their attempts restored.
-- KEYS  jobs       hash  id -> record
--       wait[20]   list  ids by priority
--       levels     zset  priorities in use
--       ghosts     set   ids in a list that were cancelled
--       state      hash  id -> "attempts stalls deferrals"
--       cancelled  zset  id -> time of cancellation, ms
--       wake       list  token for an idle worker
--       letter_jobs    hash  jobs of the dead-letter queue (this queue's own without one)
--       letter_state   hash  its state
--       letter_errors  hash  its errors
--       letter_dead    zset  its dead
-- ARGV  ids  rest  at most 1000
-- USES  wake place
-- Returns    number put back
-- Invariant  a job comes back once however often this is called; what its attempts raised is kept until it ends
-- Bound      O(ids)
local groups, moved = {}, 0
for i = ids, #ARGV do
  local id = ARGV[i]
  local was_dead = redis.call('ZREM', letter_dead, id) == 1
  local was_cancelled = not was_dead and redis.call('ZREM', cancelled, id) == 1
  local record = (was_dead and redis.call('HGET', letter_jobs, id)) or (was_cancelled and redis.call('HGET', jobs, id))
  if record then
    moved = moved + 1
    redis.call('HDEL', letter_state, id)
    redis.call('HDEL', state, id)
    if letter_jobs ~= jobs and was_dead then
      redis.call('HSET', jobs, id, record)
      redis.call('HDEL', letter_jobs, id)
      redis.call('HDEL', letter_errors, id)
    end
    if redis.call('SREM', ghosts, id) == 0 then
      local level = string.byte(record, 2)
      groups[level] = groups[level] or {}
      table.insert(groups[level], id)
    end
  end
end
for level, group in pairs(groups) do place('RPUSH', wait, levels, level, group) end
if moved > 0 then wake_one(wake) end
return moved
