-- The new shard stands in the place of the old one, and may be taken over.
-- KEYS: switching, then the new shard, due, outbox, unmoved, then the old ones
if redis.call('EXISTS', KEYS[2]) == 1 then
  for i = 5, 2, -1 do
    if redis.call('EXISTS', KEYS[i]) == 1 then
      redis.call('RENAME', KEYS[i], KEYS[i + 4])
    else
      redis.call('UNLINK', KEYS[i + 4])
    end
  end
end
return redis.call('DEL', KEYS[1])
