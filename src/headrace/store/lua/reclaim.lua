-- reclaim: take the jobs of one worker whose lease ran out back to the front of their lists, a page at a time.
-- KEYS  wait[20]   list  ids by priority
--       levels     zset  priorities in use
--       held       hash  id -> hold
--       leases     zset  worker -> deadline, ms
--       state      hash  id -> "attempts stalls deferrals"
--       dead       zset  id -> time of death, ms
--       cancelled  zset  id -> time of cancellation, ms
--       cancels    set   ids of active jobs to cancel
--       waiters    hash  id -> inboxes
--       uniques    hash  unique key -> id
--       keyed      hash  id -> unique key
--       meta       hash  fence, paused, totals
--       wake       list  token for an idle worker
-- ARGV  worker       text  empty: the one whose lease ran out first
--       cursor       text  '0' at first, then as returned, with the worker that was returned
--       max_stalled  int   0..100; a started job that stalled more often is dead
-- USES  now wake place tell release count
-- Returns    {worker or '', cursor, now, next lease deadline ms or 0, jobs put back, jobs that died, jobs never started};
--            done with this worker when the cursor is '0'; no worker is late when worker is ''
-- Invariant  a started job burns an attempt and counts a stall; one that was only held burns nothing, and has one stall at
--            least from then on; a live lease is never touched
-- Bound      one page of 500 holds
local now = now_ms()
local target = worker
if target == '' then target = redis.call('ZRANGEBYSCORE', leases, '-inf', now - 1, 'LIMIT', 0, 1)[1] or '' end
local deadline = target ~= '' and redis.call('ZSCORE', leases, target)
if target == '' or not deadline or tonumber(deadline) >= now then
  local first = redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES')
  return {'', '0', now, first[2] and tonumber(first[2]) or 0, 0, 0, 0}
end
local page = redis.call('HSCAN', held, cursor, 'COUNT', 500)
local holds, fronts, died, stopped, back, unstarted = page[2], {}, {}, {}, 0, 0
for i = 1, #holds, 2 do
  local id = holds[i]
  local mark, level, holder = string.match(holds[i + 1], '^%d+([+-])(%d+)[+-](.*)$')
  if holder == target then
    local attempts, stalls, deferrals = string.match(redis.call('HGET', state, id) or '0 0 0', '^(%d+) (%d+) (%d+)')
    if mark == '+' then
      attempts = attempts + 1
      stalls = stalls + 1
    else
      -- Why: a held job may run for a moment before its start is recorded; from now on it never does.
      stalls = math.max(1, tonumber(stalls))
      unstarted = unstarted + 1
    end
    redis.call('HDEL', held, id)
    redis.call('HSET', state, id, string.format('%d %d %d', attempts, stalls, deferrals))
    if redis.call('SREM', cancels, id) == 1 then
      redis.call('ZADD', cancelled, now, id)
      stopped[#stopped + 1] = id
    elseif mark == '+' and stalls > tonumber(max_stalled) then
      redis.call('HSET', state, id, string.format('%d %d %d stalled', attempts, stalls, deferrals))
      redis.call('ZADD', dead, now, id)
      died[#died + 1] = id
    else
      fronts[level] = fronts[level] or {}
      table.insert(fronts[level], id)
      back = back + 1
    end
  end
end
for level, ids in pairs(fronts) do
  table.sort(ids, function(one, other) return one > other end)
  place('LPUSH', wait, levels, tonumber(level), ids)
end
if back > 0 then wake_one(wake) end
release(uniques, keyed, died)
release(uniques, keyed, stopped)
tell(waiters, died, 'failed')
tell(waiters, stopped, 'cancelled')
count(meta, now, 'stalled', back + #died + #stopped)
count(meta, now, 'failed', #died)
if page[1] == '0' then redis.call('ZREM', leases, target) end
local first = redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES')
return {target, page[1], now, first[2] and tonumber(first[2]) or 0, back, #died, unstarted}
