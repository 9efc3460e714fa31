-- The change of program is done where everyone was listed and nobody is left.
-- KEYS: shard, unmoved    ARGV: generation
-- Returns how many are left; -1 where not everyone was listed.
local held = redis.call('HMGET', KEYS[1], 'generation', 'moved', 'program:listed')
if held[1] ~= ARGV[1] then
  return redis.error_reply('CHANGED generation ' .. tostring(held[1]))
end
if held[2] == ARGV[1] then
  return 0
end
if held[3] ~= ARGV[1] then
  return -1
end
local left = redis.call('SCARD', KEYS[2])
if left == 0 then
  redis.call('HSET', KEYS[1], 'moved', ARGV[1])
  redis.call('HDEL', KEYS[1], 'program:before')
end
return left
