-- Renews a replica's lease, and tells which of its streams others have ended.
-- KEYS: replicas running notices secret born
-- ARGV: token lease secret, then the notices that have been heeded
local replicas, running, notices, secret, born = unpack(KEYS)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', replicas, now + ARGV[2], ARGV[1])
-- A server that has lost everything gets back the secret that is in use, and
-- knows from now on since when it knows anything.
if ARGV[3] ~= '' then
  redis.call('SET', secret, ARGV[3], 'NX')
end
redis.call('SET', born, string.format('%.0f', now), 'NX')
for i = 4, #ARGV do
  redis.call('SREM', notices, ARGV[i])
end
return {redis.call('SCARD', running), redis.call('SRANDMEMBER', notices, 500)}
