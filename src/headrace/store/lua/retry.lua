-- retry: put dead or cancelled jobs back in their lists with their attempts restored.
-- KEYS  jobs       hash  id -> record
--       wait[20]   list  ids by priority
--       levels     zset  priorities in use
--       ghosts     set   ids in a list that were cancelled
--       state      hash  id -> "attempts stalls deferrals"
--       errors     hash  id -> what failed attempts raised
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
    if letter_jobs ~= jobs and was_dead then
      redis.call('HSET', jobs, id, record)
      local raised = redis.call('HGET', letter_errors, id)
      if raised then redis.call('HSET', errors, id, raised) end
      redis.call('HDEL', letter_jobs, id)
      redis.call('HDEL', letter_state, id)
      redis.call('HDEL', letter_errors, id)
    end
    -- Why: a state says to whoever completes the job that something lies beside its record, to be forgotten with it.
    redis.call('HSET', state, id, '0 0 0')
    if redis.call('SREM', ghosts, id) == 0 then
      local level = string.byte(record, 2) or 0
      if level < 1 or level > 20 then level = 5 end
      groups[level] = groups[level] or {}
      table.insert(groups[level], id)
    end
  end
end
for level, group in pairs(groups) do place('RPUSH', wait, levels, level, group) end
if moved > 0 then wake_one(wake) end
return moved
