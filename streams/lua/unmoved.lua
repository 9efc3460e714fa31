-- Some of the customers who may still be on the program before.
-- KEYS: shard, unmoved    ARGV: token, limit
local refusal = refused(KEYS[1], ARGV[1], nil)
if refusal then
  return refusal
end
return redis.call('SRANDMEMBER', KEYS[2], ARGV[2])
