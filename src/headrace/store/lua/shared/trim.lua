-- trim: drop the oldest finished jobs of one kind beyond `count` or older than `before_ms`, at most `most` a call, with
-- everything that is kept of them in the hashes given.
local function trim(index, count, before_ms, most, hashes)
  local size = redis.call('ZCARD', index)
  if size == 0 then return end
  local over, gone = size - count, {}
  if over > 0 then gone = redis.call('ZRANGE', index, 0, math.min(over, most) - 1) end
  if #gone < most then
    local old = redis.call('ZRANGEBYSCORE', index, '-inf', before_ms, 'LIMIT', #gone, most - #gone)
    for i = 1, #old do gone[#gone + 1] = old[i] end
  end
  if #gone == 0 then return end
  redis.call('ZREM', index, unpack(gone))
  for _, hash in ipairs(hashes) do redis.call('HDEL', hash, unpack(gone)) end
end
