-- Appends to many streams of one producer at once. A stream that does not take
-- its events, and only that, is named in the answer, with what is so instead.
-- KEYS: log meta, for each stream
-- ARGV: token, then for each stream: first seq, how many, then type and data of each
local token = ARGV[1]
local arg = 2
local refused = {}
for k = 1, #KEYS, 2 do
  local log, meta = KEYS[k], KEYS[k + 1]
  local first, count = tonumber(ARGV[arg]), tonumber(ARGV[arg + 1])
  arg = arg + 2
  local known = redis.call('HMGET', meta, 'producer', 'last')
  local bad
  if known[1] ~= token or tonumber(known[2]) ~= first - 1 then
    local stood = redis.call('HMGET', meta, 'last', 'end', 'end_type', 'end_data', 'end_recovery')
    if not stood[1] then
      bad = {k, 'missing'}
    elseif stood[2] then
      bad = {k, 'sealed', stood[2], stood[3], stood[4], stood[5]}
    elseif known[1] ~= token then
      bad = {k, 'fenced'}
    else
      bad = {k, 'last', stood[1]}
    end
  else
    local parts = {ARGV[arg - 2], '\n'}
    for i = 0, count - 1 do
      local type, data = ARGV[arg + 2 * i], ARGV[arg + 2 * i + 1]
      -- One stream that was tampered with must not keep the others from theirs.
      local added = redis.pcall('XADD', log, string.format('0-%.0f', first + i), 't', type, 'd', data)
      if added.err then
        bad = {k, 'broken', added.err}
        break
      end
      parts[#parts + 1] = #type .. ' ' .. #data .. ' 0\n'
      parts[#parts + 1] = type
      parts[#parts + 1] = data
    end
    if not bad then
      redis.call('HSET', meta, 'last', string.format('%.0f', first + count - 1))
      redis.call('PUBLISH', log, table.concat(parts))
    end
  end
  if bad then
    refused[#refused + 1] = bad
  end
  arg = arg + 2 * count
end
return refused
