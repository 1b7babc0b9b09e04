-- enqueue: accept a batch of jobs of one priority and one delay.
-- KEYS  jobs      hash  id -> record
--       wait[20]  list  ids by priority
--       levels    zset  priorities in use
--       delayed   zset  id -> due score
--       leases    zset  worker -> deadline, ms
--       uniques   hash  unique key -> id
--       keyed     hash  id -> unique key
--       receipts  list  first ids of the latest calls that were accepted
--       wake      list  token for an idle worker
-- ARGV  priority    int   1..20
--       delay_ms    int   0..31536000000
--       unique_key  text  empty, or the key of the one job of the batch
--       resent      int   1 when the batch may have been accepted before
--       batch       rest  id, body, id, body ...; at most 1000 jobs
-- USES  now wake place
-- Returns    {number accepted, id that holds the unique key or '', 1 when some worker's lease has run out}
-- Invariant  an id is in `jobs` before it is in a list; a resent id is accepted once; a key names at most one pending job
-- Bound      O(batch); a resent one also O(receipts), at most 11,000
if resent == '1' and redis.call('LPOS', receipts, ARGV[batch]) then return {0, '', 0} end
local now = now_ms()
local level = tonumber(priority)
local stamp = struct.pack('>BBI6', 1, level, now)
if unique_key ~= '' then
  local holder = redis.call('HGET', uniques, unique_key)
  if holder then return {0, holder, 0} end
  redis.call('HSET', uniques, unique_key, ARGV[batch])
  redis.call('HSET', keyed, ARGV[batch], unique_key)
end
local fields, ids = {}, {}
for i = batch, #ARGV, 2 do
  local id = ARGV[i]
  if resent == '0' or redis.call('HEXISTS', jobs, id) == 0 then
    local at = #fields
    ids[#ids + 1] = id
    fields[at + 1] = id
    fields[at + 2] = stamp .. ARGV[i + 1]
  end
end
if #ids > 0 then
  redis.call('HSET', jobs, unpack(fields))
  -- Why: a batch whose reply was lost is sent again, perhaps after its jobs have completed and left no other trace.
  if redis.call('RPUSH', receipts, ids[1]) > 11000 then redis.call('LTRIM', receipts, -10000, -1) end
  local delay = tonumber(delay_ms)
  if delay > 0 then
    local score = (now + delay) * 32 + 20 - level
    local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
    for i = 1, #ids do
      fields[2 * i - 1] = score
      fields[2 * i] = ids[i]
    end
    redis.call('ZADD', delayed, unpack(fields))
    if not head[2] or score < tonumber(head[2]) then wake_one(wake) end
  else
    place('RPUSH', wait, levels, level, ids)
    wake_one(wake)
  end
end
local lease = redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES')
return {#ids, '', (lease[2] and tonumber(lease[2]) < now) and 1 or 0}
