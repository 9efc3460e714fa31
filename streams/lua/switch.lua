-- The shard goes over to another version of its program: from now on its owner is refused, and every customer that is
-- there is to be moved. Done already: nothing is changed.
-- KEYS: shard
-- ARGV: version from, version to, the file of the new program, the instant of the change ('' for the newest purchase,
--       in the event clock), until when to protect ('' for not at all)
-- Returns the generation and the instant of the change.
local shard = KEYS[1]
local held = redis.call('HMGET', shard, 'bound:version', 'generation', 'moved', 'program:text', 'newest:purchases')
local version, generation, moved, text = held[1], tonumber(held[2] or '0'), tonumber(held[3] or '0'), held[4]
if version == ARGV[2] then
  return {generation, redis.call('HGET', shard, 'program:at') or ''}
end
if version ~= ARGV[1] then
  return redis.error_reply('CHANGED ' .. tostring(version))
end
if moved < generation then
  return redis.error_reply('CHANGED ' .. tostring(version))
end
local instant = ARGV[4]
if instant == '' then
  instant = held[5] or '0'
end
redis.call('HINCRBY', shard, 'version', 1)
redis.call('HSET', shard, 'owner', '', 'bound:version', ARGV[2], 'generation', generation + 1, 'program:before', text,
  'program:text', ARGV[3], 'program:at', instant, 'program:protect', ARGV[5], 'program:listed', '')
return {generation + 1, instant}
