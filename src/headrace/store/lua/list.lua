-- list: read one page of the ids of jobs with one status.
-- KEYS  wait[20]   list  ids by priority
--       levels     zset  priorities in use
--       ghosts     set   ids in a list that were cancelled
--       delayed    zset  id -> due score
--       held       hash  id -> hold
--       dead       zset  id -> time of death, ms
--       cancelled  zset  id -> time of cancellation, ms
--       kept       zset  id -> expiry of its outcome, ms
-- ARGV  status  text  waiting, delayed, active, completed, failed or cancelled
--       cursor  text  '0' at first, then as returned
--       limit   int   1..1000
-- USES  now
-- Returns    {cursor or '0' at the end, ids}; failed, cancelled and completed start with the newest
-- Invariant  changes nothing
-- Bound      O(limit); for waiting jobs also O(distance of the cursor from the nearer end) / 8,000
local sets = {delayed = delayed, completed = kept, failed = dead, cancelled = cancelled}
if status == 'active' then
  local page = redis.call('HSCAN', held, cursor, 'COUNT', limit)
  local ids = {}
  for i = 1, #page[2], 2 do
    if page[2][i] ~= '' then ids[#ids + 1] = page[2][i] end
  end
  return {page[1], ids}
end
if status ~= 'waiting' then
  local first = math.min(tonumber(cursor), 1e12)
  local ids
  if status == 'completed' then
    ids = redis.call('ZREVRANGEBYSCORE', kept, '+inf', '(' .. now_ms(), 'LIMIT', first, limit)
  else
    ids = redis.call(status == 'delayed' and 'ZRANGE' or 'ZREVRANGE', sets[status], first, first + limit - 1)
  end
  return {#ids == tonumber(limit) and tostring(first + #ids) or '0', ids}
end
-- A cursor over waiting jobs is the number of ids passed, counted over the lists from the highest priority down.
local skip, ids, passed = tonumber(cursor), {}, 0
for _, level in ipairs(redis.call('ZREVRANGE', levels, 0, -1)) do
  local list = KEYS[wait + level]
  local length = redis.call('LLEN', list)
  local from = math.max(0, skip - passed)
  if from < length and #ids < tonumber(limit) then
    local page = redis.call('LRANGE', list, from, from + limit - #ids - 1)
    for i = 1, #page do ids[#ids + 1] = page[i] end
  end
  passed = passed + length
end
local nextcursor = skip + #ids < passed and #ids > 0 and tostring(skip + #ids) or '0'
local live = {}
for i = 1, #ids do
  if redis.call('SISMEMBER', ghosts, ids[i]) == 0 then live[#live + 1] = ids[i] end
end
return {nextcursor, live}
