-- release: free the unique keys of jobs that have ended or were deleted; `keyed` says which key a job holds.
local function release(uniques, keyed, ids)
  if #ids == 0 or redis.call('HLEN', keyed) == 0 then return end
  local keys = redis.call('HMGET', keyed, unpack(ids))
  for i = 1, #ids do
    if keys[i] then
      redis.call('HDEL', uniques, keys[i])
      redis.call('HDEL', keyed, ids[i])
    end
  end
end
