-- settle: record what became of jobs that a worker holds; each entry counts only under its own hold.
-- KEYS  jobs       hash  id -> record
--       wait[20]   list  ids by priority
--       levels     zset  priorities in use
--       delayed    zset  id -> due score
--       held       hash  id -> hold
--       leases     zset  worker -> deadline, ms
--       state      hash  id -> "attempts stalls deferrals"
--       errors     hash  id -> what failed attempts raised
--       progress   hash  id -> last progress
--       dead       zset  id -> time of death, ms
--       cancelled  zset  id -> time of cancellation, ms
--       outcomes   hash  id -> outcome of a completed job
--       kept       zset  id -> expiry of its outcome, ms
--       waiters    hash  id -> inboxes
--       uniques    hash  unique key -> id
--       keyed      hash  id -> unique key
--       cancels    set   ids of active jobs to cancel
--       meta       hash  fence, paused, totals
--       wake       list  token for an idle worker
--       letter_jobs    hash  jobs of the dead-letter queue (this queue's own without one)
--       letter_state   hash  its state
--       letter_errors  hash  its errors
--       letter_progress  hash  its progress
--       letter_dead    zset  its dead
-- ARGV  worker      text
--       lease_ms    int   1000..600000
--       idle        int   1 when the worker holds nothing of this queue after this call
--       spent_ms    int   time that the settled attempts ran, together
--       keep_count  int   outcomes and cancelled jobs kept at most, each
--       dead_count  int   dead jobs kept at most
--       keep_ms     int   time that dead and cancelled jobs are kept
--       plain       int   number of jobs completed without anything to keep: their id, hold come first in `entries`
--       entries     rest  plain: id, hold. Then six an entry: verb, id, hold, number, text, extra
--                         complete  ms to keep the outcome, outcome, ''
--                         retry     delay in ms, errors, state
--                         dead      0, errors, state
--                         cancel    0, '', ''
--                         back      0, '', ''       to the front, in the order of the entries, no attempt burnt
--                         defer     delay in ms, '', state
--                         start     0, '', ''       the held job is being run now
--                         follow    delay in ms, body, priority: a job that is enqueued only with the entry before it
-- USES  now wake place same tell trim release count
-- Returns    {status, now, refused ids}; status -1: the lease had run out, nothing was recorded
-- Invariant  an entry whose hold is not the current one changes nothing; a completed job leaves no trace but its outcome;
--            a job that ended holds no unique key
-- Bound      O(entries)
local now = now_ms()
local mine = redis.call('ZSCORE', leases, worker)
if not mine or tonumber(mine) < now then return {-1, now, {}} end
local refused, completed, failed, retried, accepted = {}, 0, 0, 0, false

-- Take `many` jobs out for good: their entries begin at `first`, `stride` values apart, with id and hold at `offset`.
-- Returns the ids whose hold was the current one, and where their entries begin.
local function finish(first, stride, offset, many)
  local ids, done, places = {}, {}, {}
  for i = 1, many do ids[i] = ARGV[first + (i - 1) * stride + offset] end
  local holds = redis.call('HMGET', held, unpack(ids))
  for i = 1, many do
    local at = first + (i - 1) * stride
    local given = ARGV[at + offset + 1]
    if holds[i] == given or same(holds[i], given) then
      done[#done + 1] = ids[i]
      places[#places + 1] = at
    else
      refused[#refused + 1] = ids[i]
    end
  end
  if #done > 0 then
    redis.call('HDEL', held, unpack(done))
    redis.call('HDEL', jobs, unpack(done))
    if redis.call('SCARD', cancels) > 0 then redis.call('SREM', cancels, unpack(done)) end
    completed = completed + #done
  end
  return done, places
end
local function forget(ids)
  for _, hash in ipairs({state, errors, progress}) do
    if redis.call('HLEN', hash) > 0 then redis.call('HDEL', hash, unpack(ids)) end
  end
end
-- Complete the entries from `first` on, all of the verb 'complete', together; true when the last one counted.
local function complete(first, many)
  local done, places = finish(first, 6, 1, many)
  if #done == 0 then return false end
  local fields, scores, texts = {}, {}, {}
  for i = 1, #done do
    local keep, text = tonumber(ARGV[places[i] + 3]), ARGV[places[i] + 4]
    texts[i] = text
    if keep > 0 then
      fields[#fields + 1] = done[i]
      fields[#fields + 1] = text
      scores[#scores + 1] = now + keep
      scores[#scores + 1] = done[i]
    end
  end
  forget(done)
  release(uniques, keyed, done)
  if #fields > 0 then
    redis.call('HSET', outcomes, unpack(fields))
    redis.call('ZADD', kept, unpack(scores))
  end
  tell(waiters, done, 'completed', texts)
  return places[#places] == first + (many - 1) * 6
end
local many = tonumber(plain)
if many > 0 then tell(waiters, finish(entries, 2, 0, many), 'completed') end

local function park(id, level, delay)
  if delay > 0 then
    redis.call('ZADD', delayed, (now + delay) * 32 + 20 - level, id)
  else
    place('RPUSH', wait, levels, level, {id})
  end
  wake_one(wake)
end
-- A job whose cancellation was asked for goes back to no list.
local function stopped(id, asked)
  if asked then
    redis.call('ZADD', cancelled, now, id)
    release(uniques, keyed, {id})
    tell(waiters, {id}, 'cancelled')
  end
  return asked
end
local fronts = {}
local verbs = {
  retry = function(id, hold, number, text, extra, asked)
    redis.call('HSET', state, id, extra)
    redis.call('HSET', errors, id, text)
    if not stopped(id, asked) then
      park(id, tonumber(string.match(hold, '^%d+.(%d+)')), tonumber(number))
      retried = retried + 1
    end
  end,
  dead = function(id, hold, number, text, extra)
    -- Why: an id whose record is gone can be looked at, retried and cleared as any other dead job.
    redis.call('HSETNX', jobs, id, '')
    if letter_jobs ~= jobs then
      redis.call('HSET', letter_jobs, id, redis.call('HGET', jobs, id))
      redis.call('HDEL', jobs, id)
      forget({id})
    end
    redis.call('HSET', letter_state, id, extra)
    redis.call('HSET', letter_errors, id, text)
    redis.call('ZADD', letter_dead, now, id)
    release(uniques, keyed, {id})
    tell(waiters, {id}, 'failed')
    failed = failed + 1
  end,
  cancel = function(id)
    stopped(id, true)
  end,
  back = function(id, hold, number, text, extra, asked)
    if not stopped(id, asked) then
      local level = tonumber(string.match(hold, '^%d+.(%d+)'))
      fronts[level] = fronts[level] or {}
      table.insert(fronts[level], id)
    end
  end,
  defer = function(id, hold, number, text, extra, asked)
    redis.call('HSET', state, id, extra)
    if not stopped(id, asked) then park(id, tonumber(string.match(hold, '^%d+.(%d+)')), tonumber(number)) end
  end,
}
local i = entries + 2 * many
while i <= #ARGV do
  local verb, id, hold, number, text, extra = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  if verb == 'complete' then
    local run = 1
    while ARGV[i + 6 * run] == 'complete' and run < 1000 do run = run + 1 end
    accepted = complete(i, run)
    i = i + 6 * (run - 1)
  elseif verb == 'follow' then
    if accepted and redis.call('HEXISTS', jobs, id) == 0 then
      local level = tonumber(extra)
      redis.call('HSET', jobs, id, struct.pack('>BBI6', 1, level, now) .. text)
      park(id, level, tonumber(number))
    end
  else
    accepted = same(redis.call('HGET', held, id), hold)
    if not accepted then
      refused[#refused + 1] = id
    elseif verb == 'start' then
      redis.call('HSET', held, id, (string.gsub(hold, '%-', '+', 2)))
    else
      redis.call('HDEL', held, id)
      verbs[verb](id, hold, number, text, extra, redis.call('SREM', cancels, id) == 1)
    end
  end
  i = i + 6
end
for level, ids in pairs(fronts) do
  local reversed = {}
  for i = #ids, 1, -1 do reversed[#reversed + 1] = ids[i] end
  place('LPUSH', wait, levels, level, reversed)
  wake_one(wake)
end

if completed + failed + retried > 0 then
  count(meta, now, 'completed', completed)
  count(meta, now, 'failed', failed)
  count(meta, now, 'retried', retried)
  count(meta, now, 'spent_ms', tonumber(spent_ms))
end
-- Why: history shrinks faster than one call can add to it, whatever it adds.
local most = math.min(4000, #ARGV - entries + 100)
local limit, since = tonumber(keep_count), now - tonumber(keep_ms)
trim(kept, limit, now, most, {outcomes})
trim(letter_dead, tonumber(dead_count), since, most, {letter_jobs, letter_state, letter_errors, letter_progress})
trim(cancelled, limit, since, most, {jobs, state, errors, progress})
if idle == '1' then redis.call('ZREM', leases, worker) else redis.call('ZADD', leases, now + lease_ms, worker) end
return {0, now, refused}
