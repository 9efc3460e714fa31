-- Forget what was published. Leaves the version, and takes a higher one: a trim may pass a commit.
-- KEYS: shard, outbox
-- ARGV: token, version, number of the last published entry, positions in the outputs (field and value)
local refusal = refused(KEYS[1], ARGV[1], nil)
if refusal then
  return refusal
end
local held = redis.call('HMGET', KEYS[1], 'version', 'outbox_last')
if tonumber(held[1]) < tonumber(ARGV[2]) then
  -- A commit is lost that the owner goes by: what was published is yet to be found in the output, from where the
  -- positions stand.
  return redis.error_reply('REFUSED version ' .. held[1] .. ', expected ' .. ARGV[2])
end
local gone = tonumber(ARGV[3]) - (tonumber(held[2]) - redis.call('LLEN', KEYS[2]))
if gone > 0 then
  redis.call('LTRIM', KEYS[2], gone, -1)
end
if #ARGV > 3 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 4))
end
return 1
