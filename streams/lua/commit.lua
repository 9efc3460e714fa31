-- One batch or one sweep, whole: Redis does not roll a script back, so everything is checked before the first write.
-- KEYS: shard, due, outbox, unmoved, then by customer: state, readable if it is written, pages if they are
-- ARGV: token, version, input ('' for a sweep), start, the shard's fields (count, then field and value),
--       what to add to its fields (count, then field and number), outbox entries (count, then each),
--       entries that become others (count, then number and entry), customers that are moved (count, then each),
--       shapes of readable hashes (count, then by shape: count, then the fields),
--       what is said of the customers, then the bytes of each: head and pages.
-- What is said of the customers is one MessagePack array, in which there are no bytes; by customer: what is written
-- besides the head (a sum of the numbers below), of due: instant (+1 only) and id, of the readable hash: number of its
-- shape and the values, of pages: count, their numbers, count of those that are dropped, their numbers
-- A commit has thousands of customers, and an argument costs both sides several times what a place in an array does.
local DUE, NEVER_DUE, READABLE, PAGES = 1, 2, 4, 8
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
local said, at = ARGV, 5
local function take(command, key, count)
  local last = at + count - 1
  while at <= last do
    local stop = math.min(at + PART - 1, last)
    redis.call(command, key, unpack(said, at, stop))
    at = stop + 1
  end
end
local function count()
  at = at + 1
  return tonumber(said[at - 1])
end
local function each_pair(call)
  for _ = 1, count() / 2 do
    call(said[at], said[at + 1])
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
local shapes = {}
for i = 1, count() do
  local shape = {}
  for j = 1, count() do
    shape[2 * j - 1], shape[2 * j] = said[at], ''
    at = at + 1
  end
  shapes[i] = shape
end
local bytes = at + 1
said, at = cmsgpack.unpack(ARGV[at]), 1
local k = 5
while k <= #KEYS do
  redis.call('SET', KEYS[k], ARGV[bytes])
  k, bytes = k + 1, bytes + 1
  local what = said[at]
  at = at + 1
  local pages = what >= PAGES
  if pages then
    what = what - PAGES
  end
  local readable = what >= READABLE
  if readable then
    what = what - READABLE
  end
  if what == DUE then
    redis.call('ZADD', due, said[at], said[at + 1])
    at = at + 2
  elseif what == NEVER_DUE then
    redis.call('ZREM', due, said[at])
    at = at + 1
  end
  if readable then
    local shape = shapes[said[at]]
    for i = 2, #shape, 2 do
      shape[i] = said[at + i / 2]
    end
    at = at + 1 + #shape / 2
    redis.call('HSET', KEYS[k], unpack(shape))
    k = k + 1
  end
  if pages then
    for _ = 1, count() do
      redis.call('HSET', KEYS[k], said[at], ARGV[bytes])
      at, bytes = at + 1, bytes + 1
    end
    take('HDEL', KEYS[k], count())
    k = k + 1
  end
end
return 1
