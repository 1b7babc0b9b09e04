-- promote: move due jobs from `delayed` to their lists, at most 1000 a call. A delayed score is due_ms * 32 + (20 -
-- priority), so that jobs due in the same millisecond come in the order of their priority. Returns how many it moved.
local function promote_due(now, delayed, wait, levels)
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now * 32 + 31, 'WITHSCORES', 'LIMIT', 0, 1000)
  if #due == 0 then return 0 end
  local groups, ids = {}, {}
  for i = 1, #due, 2 do
    local level = 20 - tonumber(due[i + 1]) % 32
    local group = groups[level]
    if not group then group = {}; groups[level] = group end
    group[#group + 1] = due[i]
    ids[#ids + 1] = due[i]
  end
  for level, group in pairs(groups) do place('RPUSH', wait, levels, level, group) end
  redis.call('ZREM', delayed, unpack(ids))
  return #ids
end
