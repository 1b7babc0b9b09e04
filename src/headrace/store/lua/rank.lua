-- rank: count the jobs that come before a waiting one.
-- KEYS  wait[20]  list  ids by priority
--       ghosts    set   ids in a list that were cancelled
-- ARGV  id        text
--       priority  int   1..20
--       limit     int   1..10000, ids of its own list that are compared at most
-- USES
-- Returns    {jobs before it, 1 when there may be more than that}
-- Invariant  changes nothing
-- Bound      O(limit); ids of cancelled jobs are told apart where at most `limit` stand before it
local own, most, ahead, more = tonumber(priority), tonumber(limit), 0, 0
local lists = {}
for level = 20, own + 1, -1 do
  local length = redis.call('LLEN', KEYS[wait + level])
  if length > 0 then lists[#lists + 1] = {KEYS[wait + level], length} end
  ahead = ahead + length
end
local at = redis.call('LPOS', KEYS[wait + own], id, 'MAXLEN', most)
if not at then
  at = math.min(most, redis.call('LLEN', KEYS[wait + own]))
  more = 1
end
if at > 0 then lists[#lists + 1] = {KEYS[wait + own], at} end
ahead = ahead + at
if ahead <= most and redis.call('SCARD', ghosts) > 0 then
  for _, list in ipairs(lists) do
    for first = 0, list[2] - 1, 5000 do
      local marks = redis.call('SMISMEMBER', ghosts, unpack(redis.call('LRANGE', list[1], first, math.min(first + 4999, list[2] - 1))))
      for i = 1, #marks do ahead = ahead - marks[i] end
    end
  end
end
return {ahead, more}
