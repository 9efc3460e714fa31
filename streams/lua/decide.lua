-- What an operator decides about a shard whose publishing is paused; its worker carries it out.
-- KEYS: shard    ARGV: decision
-- Returns 1, or 0 where nothing is paused.
local held = redis.call('HGET', KEYS[1], 'held')
if not held or held == '' then
  return 0
end
redis.call('HSET', KEYS[1], 'decision', ARGV[1])
return 1
