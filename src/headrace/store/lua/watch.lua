-- watch: return the outcome of a job, or register an inbox that is told when it comes.
-- KEYS  jobs       hash  id -> record
--       dead       zset  id -> time of death, ms
--       cancelled  zset  id -> time of cancellation, ms
--       outcomes   hash  id -> outcome of a completed job
--       kept       zset  id -> expiry of its outcome, ms
--       waiters    hash  id -> inboxes
-- ARGV  id     text
--       inbox  text  channel; empty: only look
--       enter  int   1 to register, 0 to take the inbox out again
-- USES  now
-- Returns    {status, outcome}; status: completed, failed, cancelled, pending or missing
-- Invariant  a job that is pending when this returns tells the inbox exactly once
-- Bound      16 inboxes a job
local outcome = redis.call('HGET', outcomes, id)
if outcome and tonumber(redis.call('ZSCORE', kept, id) or 0) > now_ms() then return {'completed', outcome} end
if redis.call('HEXISTS', jobs, id) == 0 then
  if redis.call('ZSCORE', dead, id) then return {'failed', ''} end
  return {'missing', ''}
end
if redis.call('ZSCORE', dead, id) then return {'failed', ''} end
if redis.call('ZSCORE', cancelled, id) then return {'cancelled', ''} end
if inbox ~= '' then
  local names, kept = redis.call('HGET', waiters, id) or '', {}
  for name in string.gmatch(names, '%S+') do
    if name ~= inbox and #kept < 15 then kept[#kept + 1] = name end
  end
  if enter == '1' then kept[#kept + 1] = inbox end
  if #kept > 0 then redis.call('HSET', waiters, id, table.concat(kept, ' ')) else redis.call('HDEL', waiters, id) end
end
return {'pending', ''}
