-- Customers that were there before the program changed, to be moved; who is moved already is found out later.
-- KEYS: shard, unmoved
-- ARGV: generation, whether these are the last (1 or 0), customers
local held = redis.call('HMGET', KEYS[1], 'generation', 'moved')
if held[1] ~= ARGV[1] then
  return redis.error_reply('CHANGED generation ' .. tostring(held[1]))
end
if tonumber(held[2] or '0') < tonumber(ARGV[1]) then
  if #ARGV > 2 then
    redis.call('SADD', KEYS[2], unpack(ARGV, 3))
  end
  if ARGV[2] == '1' then
    redis.call('HSET', KEYS[1], 'program:listed', ARGV[1])
  end
end
return redis.call('SCARD', KEYS[2])
