-- Ends streams of replicas whose lease has lapsed, a few at a time; answers
-- how many, and whether there are more.
-- KEYS: replicas pulse
-- ARGV: prefix sealer lease chunk type data recovery now retention by
local replicas, pulse = unpack(KEYS)
local how = {
  prefix = ARGV[1], sealer = ARGV[2], type = ARGV[5], data = ARGV[6], recovery = ARGV[7],
  now = ARGV[8], retention = ARGV[9], by = ARGV[10],
}
local lease, chunk = tonumber(ARGV[3]), tonumber(ARGV[4])

local t = now()
local last = tonumber(redis.call('GET', pulse) or 0)
redis.call('SET', pulse, string.format('%.0f', t))
if t - last > lease / 2 then
  -- Nobody has been here for long: it was the server, or its network, that was
  -- away. Replicas that live get the time to say so.
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', replicas, '-inf', string.format('%.0f', t + lease / 2))) do
    redis.call('ZADD', replicas, string.format('%.0f', t + lease / 2), token)
  end
  return {'0', '0'}
end

-- A lease that lasts longer than one can is from before the clock was set back.
local longest = string.format('%.0f', t + lease)
for _, token in ipairs(redis.call('ZRANGEBYSCORE', replicas, '(' .. longest, '+inf')) do
  redis.call('ZADD', replicas, longest, token)
end

local token = redis.call('ZRANGEBYSCORE', replicas, '-inf', string.format('%.0f', t), 'LIMIT', 0, 1)[1]
if not token then
  return {'0', '0'}
end
local running = how.prefix .. 'running:' .. token

local function finish(id)
  if redis.call('HGET', how.prefix .. id .. ':meta', 'producer') == token then
    seal(id, how)
  else
    redis.call('SREM', running, id) -- nothing of it is left
  end
end

-- What was tampered with can't be ended, and must not keep the others from their
-- end. It is kept as long as if it had one.
local function give_up(id)
  local log, meta = how.prefix .. id .. ':log', how.prefix .. id .. ':meta'
  local owner = redis.pcall('HGET', meta, 'owner_hash')
  if type(owner) == 'string' then
    redis.call('SREM', how.prefix .. 'open:' .. owner, id)
  end
  redis.call('PEXPIRE', log, how.retention)
  redis.call('PEXPIRE', meta, how.retention)
  redis.call('SREM', running, id)
end

local ids = redis.call('SRANDMEMBER', running, chunk)
for _, id in ipairs(ids) do
  if not pcall(finish, id) then
    give_up(id)
  end
end
if redis.call('EXISTS', running) == 0 then
  redis.call('ZREM', replicas, token)
end
return {tostring(#ids), '1'}
