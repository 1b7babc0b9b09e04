-- report: note something about a job that its worker holds, such as its progress.
-- KEYS  held      hash  id -> hold
--       progress  hash  id -> last progress
-- ARGV  id    text
--       hold  text
--       note  text  msgpack [percent, text]
-- USES  same
-- Returns    1, or 0 when the hold is not the current one
-- Invariant  a worker that lost its hold writes nothing
-- Bound      O(1)
if not same(redis.call('HGET', held, id), hold) then return 0 end
redis.call('HSET', progress, id, note)
return 1
