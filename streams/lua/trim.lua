-- Forget what was published. Needs the owner only and leaves the version: a trim may pass a commit.
-- KEYS: shard, outbox    ARGV: token, number of the last published entry, positions in the outputs (field and value)
local refusal = refused(KEYS[1], ARGV[1], nil)
if refusal then
  return refusal
end
local newest = tonumber(redis.call('HGET', KEYS[1], 'outbox_last'))
if tonumber(ARGV[2]) > newest then
  -- the commit of that entry is lost: what was published is yet to be found in the output
  return redis.error_reply('REFUSED outbox entry ' .. ARGV[2] .. ', the newest is ' .. newest)
end
local gone = tonumber(ARGV[2]) - (newest - redis.call('LLEN', KEYS[2]))
if gone > 0 then
  redis.call('LTRIM', KEYS[2], gone, -1)
end
if #ARGV > 2 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 3))
end
return 1
