-- reserve: lease waiting jobs to a worker, highest priority first, first in first out within a priority.
-- KEYS  jobs      hash  id -> record
--       wait[20]  list  ids by priority
--       levels    zset  priorities in use
--       ghosts    set   ids in a list that were cancelled
--       delayed   zset  id -> due score
--       held      hash  id -> hold
--       leases    zset  worker -> deadline, ms
--       state     hash  id -> "attempts stalls deferrals"
--       errors    hash  id -> what failed attempts raised
--       meta      hash  fence, paused, totals
--       wake      list  token for an idle worker
-- ARGV  worker    text
--       lease_ms  int   1000..600000
--       start     int   0..10000, jobs that are started at once, unless a lost worker had held them
--       prefetch  int   0..10000, further jobs that are held without being started
-- USES  now wake place promote ghosts
-- Returns    {status, now, next due ms or 0, next lease deadline of another worker ms or 0, 1 when jobs remain,
--            ids, records, {hold, count ...}, {index, state, errors ...}}
--            status: 0 done, 1 paused, -1 the worker's lease had run out
-- Invariant  a job is in one list or held by one worker, never both; the fence only grows
-- Bound      O(start + prefetch + jobs due, at most 1000 + ids that are only skipped, at most 100,000 a priority)
local now = now_ms()
if redis.call('HEXISTS', meta, 'paused') == 1 then return {1, now, 0, 0, 0, {}, {}, {}, {}} end
local mine = redis.call('ZSCORE', leases, worker)
if mine and tonumber(mine) < now then return {-1, now, 0, 0, 0, {}, {}, {}, {}} end
local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
if head[2] and tonumber(head[2]) <= now * 32 + 31 then
  promote_due(now, delayed, wait, levels)
  head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
end
local starting = tonumber(start)
local wanted = starting + tonumber(prefetch)
local ids, holds, runs, known, remain = {}, {}, {}, {}, 0
local stateful = redis.call('HLEN', state) > 0
local ranks = redis.call('ZREVRANGE', levels, 0, -1)
local fence
if #ranks > 0 and wanted > 0 then
  -- Teaches: a fence that is the time of its lease still only grows, and tells since when a job is held.
  fence = string.format('%d', math.max(now, tonumber(redis.call('HGET', meta, 'fence') or 0) + 1))
  redis.call('HSET', meta, 'fence', fence)
end
for _, level in ipairs(ranks) do
  local list = KEYS[wait + level]
  local missing = wanted - #ids
  if missing == 0 then remain = 1; break end
  local asked = missing
  local popped = redis.call('LPOP', list, asked) or {}
  local live, passed = drop_ghosts(ghosts, popped), 0
  -- Why: ids that are only skipped must not let a lower priority go first.
  while #live < missing and #popped == asked and passed < 100000 do
    asked = missing - #live
    popped = redis.call('LPOP', list, asked) or {}
    passed = passed + #popped
    for _, id in ipairs(drop_ghosts(ghosts, popped)) do live[#live + 1] = id end
  end
  if #popped < asked or redis.call('LLEN', list) == 0 then redis.call('ZREM', levels, level) else remain = 1 end
  local at = #ids
  local eager = math.max(0, math.min(#live, starting - at))
  local started = fence .. '+' .. level .. '+' .. worker
  local waiting = fence .. '-' .. level .. '-' .. worker
  for i = 1, #live do
    ids[at + i] = live[i]
    local hold = i <= eager and started or waiting
    if stateful then
      local known_state = redis.call('HGET', state, live[i])
      if known_state then
        known[#known + 1] = at + i - 1
        known[#known + 1] = known_state
        known[#known + 1] = redis.call('HGET', errors, live[i]) or ''
        -- Why: what a lost worker held is started only when its worker says so: it may be what kills workers.
        if string.match(known_state, '^%d+ [1-9]') then hold = waiting end
      end
    end
    holds[2 * (at + i) - 1] = live[i]
    holds[2 * (at + i)] = hold
    if runs[#runs - 1] == hold then
      runs[#runs] = runs[#runs] + 1
    else
      runs[#runs + 1] = hold
      runs[#runs + 1] = 1
    end
  end
end
local records = {}
if #ids > 0 then
  -- Why: a small hash is a packed list that every access scans from the front. One value that is too long for it makes
  -- this hash a table, from the start and for good: half of the server's time a job. Its field is empty, so no id.
  if redis.call('HLEN', held) == 0 then redis.call('HSET', held, '', string.rep(' ', 80)) end
  for i = 1, #holds, 4000 do redis.call('HSET', held, unpack(holds, i, math.min(i + 3999, #holds))) end
  redis.call('ZADD', leases, now + lease_ms, worker)
  if #ids <= 4000 then
    records = redis.call('HMGET', jobs, unpack(ids))
  else
    for i = 1, #ids do records[i] = redis.call('HGET', jobs, ids[i]) end
  end
end
if remain == 1 then wake_one(wake) end
local first = redis.call('ZRANGE', leases, 0, 1, 'WITHSCORES')
local deadline = first[1] == worker and first[4] or first[1] ~= worker and first[2]
return {
  0, now, head[2] and math.floor(tonumber(head[2]) / 32) or 0, deadline and tonumber(deadline) or 0, remain,
  ids, records, runs, known,
}
