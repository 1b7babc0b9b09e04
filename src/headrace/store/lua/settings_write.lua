-- settings_write: store the next version of the settings of all processes, unless another writer was faster.
-- KEYS  settings  hash  number -> "time body", last -> the latest number
-- ARGV  expected  int   the latest version that the writer has seen, 0 for none
--       keep      int   versions that are kept
--       channel   text  where running processes are told
--       body      text  msgpack, see headrace.settings_fleet
-- USES  now
-- Returns    {1, number, time}, or {0, latest number, its "time body"} when that is not the expected one
-- Invariant  a version never changes, and the next one has the next number
-- Bound      O(1); one version leaves when one more than `keep` would be there
local last = tonumber(redis.call('HGET', settings, 'last') or 0)
if last ~= tonumber(expected) then return {0, last, redis.call('HGET', settings, tostring(last)) or ''} end
local number, now = last + 1, now_ms()
redis.call('HSET', settings, 'last', number, tostring(number), string.format('%d ', now) .. body)
redis.call('HDEL', settings, tostring(number - keep))
redis.call('PUBLISH', channel, string.format('version %d', number))
return {1, number, now}
