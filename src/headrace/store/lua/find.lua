-- find: read everything that is known of one job.
-- KEYS  jobs       hash  id -> record
--       delayed    zset  id -> due score
--       held       hash  id -> hold
--       state      hash  id -> "attempts stalls deferrals"
--       errors     hash  id -> what failed attempts raised
--       progress   hash  id -> last progress
--       dead       zset  id -> time of death, ms
--       cancelled  zset  id -> time of cancellation, ms
--       outcomes   hash  id -> outcome of a completed job
--       kept       zset  id -> expiry of its outcome, ms
--       meta       hash  fence, paused, totals
--       leases     zset  worker -> deadline, ms
-- ARGV  id  text
-- USES  now
-- Returns    {status, now, record, state, errors, progress, outcome, when ms or 0, hold, 1 when the queue is paused,
--            lease deadline ms or 0}; when: due, death or cancellation
-- Invariant  changes nothing
-- Bound      O(log jobs)
local now = now_ms()
local record = redis.call('HGET', jobs, id)
local outcome = redis.call('HGET', outcomes, id)
-- Why: an outcome is swept away by a later completion; what nobody may see any more is not there until then.
if outcome and tonumber(redis.call('ZSCORE', kept, id) or 0) <= now then outcome = false end
local status, at, hold, deadline = 'missing', 0, '', 0
if outcome then
  status = 'completed'
elseif record then
  hold = redis.call('HGET', held, id) or ''
  local due, died, stopped = redis.call('ZSCORE', delayed, id), redis.call('ZSCORE', dead, id), redis.call('ZSCORE', cancelled, id)
  if hold ~= '' then
    status = 'active'
    deadline = tonumber(redis.call('ZSCORE', leases, string.match(hold, '^%d+[+-]%d+[+-](.*)$')) or 0)
  elseif died then status = 'failed'; at = tonumber(died)
  elseif stopped then status = 'cancelled'; at = tonumber(stopped)
  elseif due then status = 'delayed'; at = math.floor(tonumber(due) / 32)
  else status = 'waiting' end
end
return {
  status, now, record or '', redis.call('HGET', state, id) or '', redis.call('HGET', errors, id) or '',
  redis.call('HGET', progress, id) or '', outcome or '', at, hold, redis.call('HEXISTS', meta, 'paused'), deadline,
}
