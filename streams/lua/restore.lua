-- The outbox as the new owner found it to be, where numbers alone do not tell what is published.
-- KEYS: shard, outbox    ARGV: token, number of the last published entry, the reign in which it was, entries
local shard, outbox = KEYS[1], KEYS[2]
local refusal = refused(shard, ARGV[1], nil)
if refusal then
  return refusal
end
local held = redis.call('HMGET', shard, 'outbox_last', 'reign', 'held')
local newest = math.max(tonumber(held[1]), tonumber(ARGV[2]))
-- A version of its own: whoever goes on from here is refused where this was lost.
redis.call('HINCRBY', shard, 'version', 1)
redis.call('DEL', outbox)
for i = 4, #ARGV do
  redis.call('RPUSH', outbox, ARGV[i])
end
redis.call('HSET', shard, 'outbox_last', newest + #ARGV - 3,
  'reign', math.max(tonumber(held[2] or '0'), tonumber(ARGV[3])) + 1)
if held[3] and held[3] ~= '' then
  -- what was held back was not published: it is all held back still
  redis.call('HSET', shard, 'held', newest)
end
return redis.call('HGETALL', shard)
