-- ghosts: drop from ids that came out of a list those that were cancelled or cleared while they stood in it.
local function drop_ghosts(ghosts, ids)
  if #ids == 0 or redis.call('SCARD', ghosts) == 0 then return ids end
  local marks = redis.call('SMISMEMBER', ghosts, unpack(ids))
  local live, gone = {}, {}
  for i = 1, #ids do
    local side = marks[i] == 1 and gone or live
    side[#side + 1] = ids[i]
  end
  if #gone > 0 then redis.call('SREM', ghosts, unpack(gone)) end
  return live
end
