-- Renews a replica's lease, and tells which of its streams others have ended.
-- KEYS: replicas running notices
-- ARGV: token lease, then the notices that have been heeded
local replicas, running, notices = unpack(KEYS)
local t = redis.call('TIME')
redis.call('ZADD', replicas, t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[2], ARGV[1])
for i = 3, #ARGV do
  redis.call('SREM', notices, ARGV[i])
end
return {redis.call('SCARD', running), redis.call('SRANDMEMBER', notices, 500)}
