-- One batch or one sweep, whole: Redis does not roll a script back, so everything is checked before the first write.
-- KEYS: shard, due, outbox, unmoved, then by customer: state, pages, readable
-- ARGV: token, version, input ('' for a sweep), start, the shard's fields (count, then field and value),
--       what to add to its fields (count, then field and number), outbox entries (count, then each),
--       entries that become others (count, then number and entry), customers that are moved (count, then each),
--       then by customer: id, head, due ('' never, '=' unchanged),
--       readable (count, then field and value), pages (count, then number and bytes), dropped pages (count, then numbers)
local shard, due, outbox, unmoved = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local refusal = refused(shard, ARGV[1], ARGV[2])
if refusal then
  return refusal
end
if ARGV[3] ~= '' then
  local watermark = redis.call('HGET', shard, 'offset:' .. ARGV[3])
  if watermark ~= ARGV[4] then
    return redis.error_reply('REFUSED watermark ' .. tostring(watermark) .. ', batch starts at ' .. ARGV[4])
  end
end

-- Lua's stack holds some 8,000 values: longer argument lists go in parts.
local PART = 4000
local at = 5
local function take(command, key, count)
  local last = at + count - 1
  while at <= last do
    local stop = math.min(at + PART - 1, last)
    redis.call(command, key, unpack(ARGV, at, stop))
    at = stop + 1
  end
end
local function count()
  at = at + 1
  return tonumber(ARGV[at - 1])
end
local function each_pair(call)
  for _ = 1, count() / 2 do
    call(ARGV[at], ARGV[at + 1])
    at = at + 2
  end
end

-- Entries that become others must still be there.
local gone = (redis.call('HGET', shard, 'outbox_last') or 0) - redis.call('LLEN', outbox)
local ahead = 5
for _ = 1, 3 do
  ahead = ahead + 1 + tonumber(ARGV[ahead])
end
for i = ahead + 1, ahead + tonumber(ARGV[ahead]), 2 do
  if tonumber(ARGV[i]) <= gone then
    return redis.error_reply('REFUSED outbox entry ' .. ARGV[i] .. ', published up to ' .. gone)
  end
end

redis.call('HINCRBY', shard, 'version', 1)
take('HSET', shard, count())
each_pair(function(field, number) redis.call('HINCRBY', shard, field, number) end)
local entries = count()
if entries > 0 then
  take('RPUSH', outbox, entries)
  redis.call('HINCRBY', shard, 'outbox_last', entries)
end
each_pair(function(number, entry) redis.call('LSET', outbox, number - gone - 1, entry) end)
take('SREM', unmoved, count())
for k = 5, #KEYS, 3 do
  local id, head, instant = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  at = at + 3
  redis.call('SET', KEYS[k], head)
  if instant == '' then
    redis.call('ZREM', due, id)
  elseif instant ~= '=' then
    redis.call('ZADD', due, instant, id)
  end
  take('HSET', KEYS[k + 2], count())
  take('HSET', KEYS[k + 1], count())
  take('HDEL', KEYS[k + 1], count())
end
return 1
