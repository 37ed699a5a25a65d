-- Forgets an ended stream, but for whose it was and that its key is used.
-- KEYS: log meta gone
-- ARGV: prefix id retention by
local log, meta, gone = unpack(KEYS)
local prefix, id, retention, by = unpack(ARGV)
local known = redis.call('HMGET', meta, 'last', 'end', 'owner', 'owner_hash', 'claim_hash')
if not known[1] then
  return {redis.call('HGET', gone, 'by') == by and 'ok' or 'missing'}
end
if not known[2] then
  return {'running'}
end
redis.call('UNLINK', log, meta)
redis.call('HSET', gone, 'owner', known[3], 'by', by)
redis.call('PEXPIRE', gone, retention)
redis.call('ZREM', prefix .. 'owned:' .. known[4], id)
if known[5] then
  local claim = prefix .. 'claim:' .. known[5]
  if redis.call('GET', claim) == id then
    redis.call('PEXPIRE', claim, retention)
  end
end
return {'ok'}
