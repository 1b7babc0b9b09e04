-- pause: stop or restart reserving in a queue.
-- KEYS  meta     hash  fence, paused, totals
--       wake     list  token for an idle worker
-- ARGV  paused   int   1 to pause, 0 to resume
--       channel  text  control channel of the queue
-- USES  now wake
-- Returns    1 when this changed something, else 0
-- Invariant  while `paused` is set, reserve returns no job
-- Bound      O(1)
if paused == '1' then
  if redis.call('HSETNX', meta, 'paused', now_ms()) == 0 then return 0 end
  redis.call('PUBLISH', channel, 'pause')
  return 1
end
if redis.call('HDEL', meta, 'paused') == 0 then return 0 end
wake_one(wake)
redis.call('PUBLISH', channel, 'resume')
return 1
