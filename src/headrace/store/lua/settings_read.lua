-- settings_read: return one version of the settings that are stored for all processes.
-- KEYS  settings  hash  number -> "time body", last -> the latest number
-- ARGV  number    int   0 for the latest
-- Returns    {latest number, its number, "time body" or ''}; an empty text: there is no such version
-- Invariant  changes nothing
-- Bound      O(1)
local last = tonumber(redis.call('HGET', settings, 'last') or 0)
local wanted = number == '0' and last or tonumber(number)
return {last, wanted, redis.call('HGET', settings, tostring(wanted)) or ''}
