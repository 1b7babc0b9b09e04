-- tell: push the end of jobs to the inboxes that wait for them, and forget the waiters. `outcomes` runs beside `ids`;
-- the message is "id status outcome".
local function tell(waiters, ids, status, outcomes)
  if #ids == 0 or redis.call('HLEN', waiters) == 0 then return end
  local inboxes = redis.call('HMGET', waiters, unpack(ids))
  for i = 1, #ids do
    if inboxes[i] then
      for inbox in string.gmatch(inboxes[i], '%S+') do
        redis.call('PUBLISH', inbox, ids[i] .. ' ' .. status .. ' ' .. (outcomes and outcomes[i] or ''))
      end
      redis.call('HDEL', waiters, ids[i])
    end
  end
end
