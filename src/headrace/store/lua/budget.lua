-- budget: ask for places among the connections of the whole fleet, or give them back; a lease keeps them.
-- KEYS  budget    hash  process -> "deadline places note"; field * -> "places of all, earliest deadline"
-- ARGV  process   text
--       least     int   0..10000, what a process that is there already keeps in any case
--       wanted    int   0..10000, 0 gives all back
--       limit     int   0..1000000000, most places of all processes
--       lease_ms  int   1000..600000
--       first     int   1 to take nothing when fewer than least are left
--       note      text  what the process says of itself
-- USES  now
-- Returns    {places granted or -1, places of the others, their number, now}
-- Invariant  the places of all processes stay within the limit, but for what is their least; what a process had is
--            free again when its lease has run out
-- Bound      O(1); O(processes) when a lease may have run out
local now = now_ms()
least, wanted = tonumber(least), tonumber(wanted)
local sum, earliest = string.match(redis.call('HGET', budget, '*') or '', '^(%d+) (%d+)$')
sum, earliest = tonumber(sum or 0), tonumber(earliest or 0)
local count = math.max(0, redis.call('HLEN', budget) - 1)
if earliest <= now then
  -- Why: a deadline that was extended since is later than the one noted here, so this is rarely done in vain.
  sum, earliest, count = 0, 0, 0
  local all = redis.call('HGETALL', budget)
  for i = 1, #all, 2 do
    local deadline, places = string.match(all[i + 1], '^(%d+) (%d+) ')
    deadline = tonumber(deadline or 0)
    if all[i] == '*' then
      deadline = now
    elseif deadline <= now then
      redis.call('HDEL', budget, all[i])
    else
      sum, count = sum + places, count + 1
      if earliest == 0 or deadline < earliest then earliest = deadline end
    end
  end
end
local mine = redis.call('HGET', budget, process)
if mine then
  sum, count = sum - tonumber(string.match(mine, '^%d+ (%d+) ')), count - 1
end
local others = sum
local left = tonumber(limit) - others
local granted = math.max(math.min(wanted, left), least)
if first == '1' and left < least then granted = -1 end
if wanted == 0 then granted = 0 end
if granted > 0 then
  local deadline = now + lease_ms
  redis.call('HSET', budget, process, string.format('%d %d ', deadline, granted) .. note)
  sum, count = sum + granted, count + 1
  if earliest == 0 or deadline < earliest then earliest = deadline end
else
  redis.call('HDEL', budget, process)
end
if count == 0 then
  redis.call('DEL', budget)
else
  redis.call('HSET', budget, '*', string.format('%d %d', sum, earliest))
  -- Why: when all processes are gone without a word, nobody is left to clean up.
  if redis.call('PTTL', budget) < tonumber(lease_ms) then redis.call('PEXPIRE', budget, lease_ms) end
end
return {granted, others, granted > 0 and count - 1 or count, now}
