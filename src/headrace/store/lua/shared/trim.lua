-- trim: drop the oldest finished jobs of one kind beyond `count` or older than `before_ms`, at most 100 a call, with
-- everything that is kept of them in the hashes given.
local function trim(index, count, before_ms, hashes)
  local over = redis.call('ZCARD', index) - count
  local gone = {}
  if over > 0 then gone = redis.call('ZRANGE', index, 0, math.min(over, 100) - 1) end
  if #gone == 0 then gone = redis.call('ZRANGEBYSCORE', index, '-inf', before_ms, 'LIMIT', 0, 100) end
  if #gone == 0 then return end
  redis.call('ZREM', index, unpack(gone))
  for _, hash in ipairs(hashes) do redis.call('HDEL', hash, unpack(gone)) end
end
