-- Forget those customers of the old store whom the new one does not have in this shard.
-- KEYS: by customer: the new state, then the old state, pages, readable
-- Returns how many were forgotten.
local forgotten = 0
for k = 1, #KEYS, 4 do
  if redis.call('EXISTS', KEYS[k]) == 0 then
    redis.call('UNLINK', KEYS[k + 1], KEYS[k + 2], KEYS[k + 3])
    forgotten = forgotten + 1
  end
end
return forgotten
