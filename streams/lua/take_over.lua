-- A new owner. A shard that was never begun is begun; one that was begun for anything else is refused, and so is an
-- empty one under a group that has published before: all would be read and published again.
-- KEYS: shard, outbox, switching (there while a rebuild puts another store in the place of this one)
-- ARGV: token, number of the last published outbox entry, the reign in which it was, the program's file,
--       where the owner's pages are (empty: nowhere), binding (count, then field and value), where a new shard begins
--       (count, then field and value)
local shard, outbox = KEYS[1], KEYS[2]
local at = 6
local function pairs_of()
  local count = tonumber(ARGV[at])
  local first = at + 1
  at = first + count
  return first, at - 1
end

if redis.call('EXISTS', KEYS[3]) == 1 then
  return redis.error_reply('SWITCHING')
end
local first, last = pairs_of()
local begun = redis.call('HEXISTS', shard, 'version') == 1
if begun then
  for i = first, last, 2 do
    local held = redis.call('HGET', shard, ARGV[i])
    if not held then
      -- a store of an earlier build does not hold all of it
      redis.call('HSET', shard, ARGV[i], ARGV[i + 1])
    elseif held ~= ARGV[i + 1] then
      -- names may hold blanks, so a control character parts them
      return redis.error_reply(table.concat({'BOUND ', ARGV[i], tostring(held), ARGV[i + 1]}, '\31'))
    end
  end
elseif tonumber(ARGV[2]) > 0 then
  return redis.error_reply('EMPTY ' .. ARGV[2])
else
  redis.call('HSET', shard, 'version', '0', 'outbox_last', '0', unpack(ARGV, first, last))
  first, last = pairs_of()
  redis.call('HSET', shard, unpack(ARGV, first, last))
end
redis.call('HSET', shard, 'owner', ARGV[1], 'program:text', ARGV[4])
if ARGV[5] ~= '' then
  redis.call('HSET', shard, 'url', ARGV[5])
else
  redis.call('HDEL', shard, 'url')
end

-- Where something was published in a reign of which the store knows nothing, it has lost a take-over, and whoever was
-- the owner before may have written since: the same number may be of two entries. The new owner looks at them itself.
local reign = tonumber(redis.call('HGET', shard, 'reign') or '0')
if tonumber(ARGV[3]) > reign then
  return {redis.call('HGETALL', shard), redis.call('LRANGE', outbox, 0, -1)}
end
redis.call('HSET', shard, 'reign', reign + 1)

-- What was published is not published again. Where more was published than this store ever numbered, it has lost
-- its last writes: numbering goes on above.
local published = tonumber(ARGV[2])
local newest = tonumber(redis.call('HGET', shard, 'outbox_last'))
if published > newest then
  redis.call('HSET', shard, 'outbox_last', published)
  redis.call('DEL', outbox)
else
  local gone = published - (newest - redis.call('LLEN', outbox))
  if gone > 0 then
    redis.call('LTRIM', outbox, gone, -1)
  end
end
return {redis.call('HGETALL', shard), redis.call('LRANGE', outbox, 0, -1)}
