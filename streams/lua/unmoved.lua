-- Some of the customers who may still be on the program before, and the last program to which all were moved.
-- KEYS: shard, unmoved    ARGV: token, limit
local refusal = refused(KEYS[1], ARGV[1], nil)
if refusal then
  return refusal
end
return {redis.call('SRANDMEMBER', KEYS[2], ARGV[2]), tonumber(redis.call('HGET', KEYS[1], 'moved') or '0')}
