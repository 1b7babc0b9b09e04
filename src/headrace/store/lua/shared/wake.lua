-- wake: leave at most one token for an idle worker; a worker that takes it and leaves jobs behind calls this again.
local function wake_one(wake)
  if redis.call('LLEN', wake) == 0 then redis.call('RPUSH', wake, '1') end
end
