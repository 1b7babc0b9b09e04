-- mine: list what the server believes that a worker holds, a page at a time, for a worker that lost a reply.
-- KEYS  held    hash  id -> hold
-- ARGV  worker  text
--       cursor  text  '0' at first, then as returned
-- USES
-- Returns    {cursor or '0' when done, {id, hold ...}}
-- Invariant  changes nothing
-- Bound      one page of 500 holds
local page = redis.call('HSCAN', held, cursor, 'COUNT', 500)
local mine = {}
for i = 1, #page[2], 2 do
  if string.match(page[2][i + 1], '^%d+[+-]%d+[+-](.*)$') == worker then
    mine[#mine + 1] = page[2][i]
    mine[#mine + 1] = page[2][i + 1]
  end
end
return {page[1], mine}
