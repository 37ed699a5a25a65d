-- Shared by the scripts that end streams. All keys of a prefix are in one hash
-- slot, so that a script may build their names.

-- news is a run of events as the stream's channel carries it, to be read by
-- parseNews.
local function news(first, events)
  local parts = {string.format('%.0f', first), '\n'}
  for _, e in ipairs(events) do
    parts[#parts + 1] = #e.type .. ' ' .. #e.data .. ' ' .. e.recovery .. '\n'
    parts[#parts + 1] = e.type
    parts[#parts + 1] = e.data
  end
  return table.concat(parts)
end

-- seal writes a stream's only terminal event, behind the last one, and starts
-- everything's time to live. The caller has checked that the stream runs.
-- how: prefix, type, data, recovery, now, retention, by, sealer.
local function seal(id, how)
  local p = how.prefix
  local log, meta = p .. id .. ':log', p .. id .. ':meta'
  local known = redis.call('HMGET', meta, 'producer', 'last', 'owner_hash', 'claim_hash')
  local producer, owner, claim = known[1], p .. 'owned:' .. known[3], p .. 'claim:' .. (known[4] or '')
  local seq = string.format('%.0f', tonumber(known[2]) + 1)

  if how.recovery == '0' then
    redis.call('XADD', log, '0-' .. seq, 't', how.type, 'd', how.data)
  else
    redis.call('XADD', log, '0-' .. seq, 't', how.type, 'd', how.data, 'r', how.recovery)
  end
  -- Without a producer in it, meta refuses every append.
  redis.call('HDEL', meta, 'producer')
  redis.call('HSET', meta, 'last', seq, 'end', seq, 'end_type', how.type, 'end_data', how.data,
    'end_recovery', how.recovery, 'ended', how.now, 'ended_by', how.by)
  redis.call('PEXPIRE', log, how.retention)
  redis.call('PEXPIRE', meta, how.retention)

  redis.call('SREM', p .. 'running:' .. producer, id)
  redis.call('SREM', p .. 'open:' .. known[3], id)
  -- The owner's list lives as long as the last of its streams.
  redis.call('ZADD', owner, 0, id)
  if redis.call('EXISTS', p .. 'open:' .. known[3]) == 0 then
    redis.call('PEXPIRE', owner, how.retention)
  end
  if known[4] and redis.call('GET', claim) == id then
    if how.type == 'error' and tonumber(seq) <= 2 then
      redis.call('DEL', claim) -- failed before its first token: the key is free
    else
      redis.call('PEXPIRE', claim, how.retention)
    end
  end

  local ending = news(tonumber(seq), {how})
  redis.call('PUBLISH', log, ending)
  if producer ~= how.sealer then
    -- The message may be lost; what stands in the set is not. A producer that
    -- is away for longer counts what it runs. The message has the end in it, for
    -- the stream may be deleted by the time it is heard.
    local notices = p .. 'notices:' .. producer
    redis.call('SADD', notices, id)
    redis.call('PEXPIRE', notices, how.retention)
    redis.call('PUBLISH', notices, id .. '\n' .. ending)
  end
  return seq
end

local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
