-- Creates a stream, or creates it again when the server has lost it.
-- KEYS: log meta gone owned open replicas running [claim]
-- ARGV: prefix id token by steal lease, then meta's fields and values
local log, meta, gone, owned, open, replicas, running, claim = unpack(KEYS)
local prefix, id, token, by, steal, lease = unpack(ARGV, 1, 6)

if redis.call('EXISTS', gone) == 1 then
  return {'exists'}
end
local creator = redis.call('HGET', meta, 'created_by')
if creator then
  -- The same call again, whose answer was lost, is not a second stream.
  return {creator == by and 'created' or 'exists'}
end
if claim then
  local holder = redis.call('GET', claim)
  if holder and holder ~= id and holder ~= steal then
    if steal ~= '*' then
      return {'claimed', holder}
    end
  else
    redis.call('SET', claim, id)
  end
end

redis.call('DEL', log)
redis.call('HSET', meta, 'producer', token, 'last', 0, 'created_by', by, unpack(ARGV, 7))
redis.call('ZADD', owned, 0, id)
redis.call('PERSIST', owned)
redis.call('SADD', open, id)
redis.call('SADD', running, id)
-- Never without a lease, or nobody would end it.
local t = redis.call('TIME')
redis.call('ZADD', replicas, 'GT', t[1] * 1000 + math.floor(t[2] / 1000) + lease, token)

-- Two at a time come as one goes, so that the list does not outgrow the streams.
for _, old in ipairs(redis.call('ZRANGE', owned, 0, 3)) do
  if redis.call('EXISTS', prefix .. old .. ':meta') == 0 then
    redis.call('ZREM', owned, old)
  end
end
return {'created'}
