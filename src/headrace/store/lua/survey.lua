-- survey: look at many queues in one call for what an idle worker must know: jobs that wait, due times, lost leases.
-- KEYS  triples  rest  levels, delayed, leases of each queue
-- ARGV
-- USES  now
-- Returns    {now, earliest event ms or 0, index of a queue where something is to do now ...}
-- Invariant  changes nothing
-- Bound      O(queues)
local now = now_ms()
local first, hot = 0, {}
for i = triples, #KEYS, 3 do
  local head = redis.call('ZRANGE', KEYS[i + 1], 0, 0, 'WITHSCORES')
  local lease = redis.call('ZRANGE', KEYS[i + 2], 0, 0, 'WITHSCORES')
  local due = head[2] and math.floor(tonumber(head[2]) / 32)
  local late = lease[2] and tonumber(lease[2]) + 1
  if redis.call('ZCARD', KEYS[i]) > 0 or (due and due <= now) or (late and late <= now) then
    hot[#hot + 1] = (i - triples) / 3
  else
    if due and (first == 0 or due < first) then first = due end
    if late and (first == 0 or late < first) then first = late end
  end
end
return {now, first, unpack(hot)}
