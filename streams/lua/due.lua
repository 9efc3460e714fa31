-- Who is due strictly before an instant, earliest first, the earliest instant of all, and what an operator decided.
-- KEYS: shard, due    ARGV: token, version, until, limit
local refusal = refused(KEYS[1], ARGV[1], ARGV[2])
if refusal then
  return refusal
end
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[3], 'LIMIT', 0, ARGV[4])
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return {ids, first[2] or false, redis.call('HGET', KEYS[1], 'decision')}
