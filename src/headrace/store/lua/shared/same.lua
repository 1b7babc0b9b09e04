-- same: whether a hold is the given one. A start may have been recorded although its reply was lost, or is still on its
-- way: the mark does not count, the fence and the worker do.
local function same(current, given)
  if current == given then return true end
  return current and string.gsub(current, '%-', '+', 2) == string.gsub(given, '%-', '+', 2)
end
