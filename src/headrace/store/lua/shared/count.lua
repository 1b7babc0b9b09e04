-- count: add to the totals of a queue and to the counts of the current minute; 60 minutes are kept.
local function count(meta, now, name, amount)
  if amount == 0 then return end
  redis.call('HINCRBY', meta, name, amount)
  local minute = math.floor(now / 60000)
  local field = 'm' .. (minute % 61) .. name
  if redis.call('HGET', meta, field .. '@') ~= tostring(minute) then
    redis.call('HSET', meta, field .. '@', minute, field, amount)
  else
    redis.call('HINCRBY', meta, field, amount)
  end
end
