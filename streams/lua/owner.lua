-- The first check of every write: is the caller still the owner, does the store stand where the caller believes?
-- Returns nil where it is so, else an error reply that names what differs.
local function refused(shard, token, version)
  local held = redis.call('HMGET', shard, 'owner', 'version')
  if held[1] ~= token then
    return redis.error_reply('REFUSED owner')
  end
  if version and held[2] ~= version then
    return redis.error_reply('REFUSED version ' .. tostring(held[2]) .. ', expected ' .. version)
  end
  return nil
end
