-- Forgets an ended stream, but for whose it was and that its key is used. Who
-- has it open on another replica may finish: for that long it lingers.
-- KEYS: log meta gone
-- ARGV: prefix id retention by linger
local log, meta, gone = unpack(KEYS)
local prefix, id, retention, by, linger = unpack(ARGV)
if redis.call('EXISTS', gone) == 1 then
  return {redis.call('HGET', gone, 'by') == by and 'ok' or 'missing'}
end
local known = redis.call('HMGET', meta, 'last', 'end', 'owner', 'owner_hash', 'claim_hash')
if not known[1] then
  return {'missing'}
end
if not known[2] then
  return {'running'}
end
redis.call('PEXPIRE', log, linger, 'LT')
redis.call('PEXPIRE', meta, linger, 'LT')
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
