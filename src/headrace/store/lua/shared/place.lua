-- place: put ids in the list of their priority, at the end ('RPUSH') or in front ('LPUSH'), and note the level.
local function place(push, wait, levels, level, ids)
  for i = 1, #ids, 5000 do
    redis.call(push, KEYS[wait + level], unpack(ids, i, math.min(i + 4999, #ids)))
  end
  redis.call('ZADD', levels, level, level)
end
