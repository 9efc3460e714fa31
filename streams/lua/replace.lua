-- Put the new customers in the place of the old ones. Who is not there any more was replaced before.
-- KEYS: by customer: the new state, pages, readable, then the old ones
for k = 1, #KEYS, 6 do
  if redis.call('EXISTS', KEYS[k]) == 1 then
    for i = k + 2, k, -1 do
      if redis.call('EXISTS', KEYS[i]) == 1 then
        redis.call('RENAME', KEYS[i], KEYS[i + 3])
      else
        redis.call('UNLINK', KEYS[i + 3])
      end
    end
  end
end
return 1
