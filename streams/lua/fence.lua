-- A rebuild is about to put another store in the place of this one: its owner is refused from its next write on, and
-- nobody takes it over meanwhile.
-- KEYS: shard, switching    ARGV: how far the rebuild is
redis.call('SET', KEYS[2], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'owner', '')
end
return 1
