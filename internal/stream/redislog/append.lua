-- Appends to many streams of one producer at once. A stream that does not take
-- its events, and only that, is named in the answer, with what is so instead.
-- Seqs come as text and stay so where they can: this runs for every token.
-- KEYS: log meta, for each stream
-- ARGV: token, then for each stream: the seq before, the last one, how many,
-- then type and data of each
local call, pcall, concat = redis.call, redis.pcall, table.concat
local ARGV = ARGV
local token = ARGV[1]
local arg = 2
local refused = {}

local function refusal(k, meta, producer)
  local stood = call('HMGET', meta, 'last', 'end', 'end_type', 'end_data', 'end_recovery')
  if not stood[1] then
    return {k, 'missing'}
  elseif stood[2] then
    return {k, 'sealed', stood[2], stood[3], stood[4], stood[5]}
  elseif producer ~= token then
    return {k, 'fenced'}
  end
  return {k, 'last', stood[1]}
end

for k = 1, #KEYS, 2 do
  local log, meta = KEYS[k], KEYS[k + 1]
  local before, last, count = ARGV[arg], ARGV[arg + 1], tonumber(ARGV[arg + 2])
  arg = arg + 3
  -- One stream that was tampered with must not keep the others from theirs.
  local known = pcall('HMGET', meta, 'producer', 'last')
  if known.err then
    refused[#refused + 1] = {k, 'broken', known.err}
  elseif known[1] ~= token or known[2] ~= before then
    refused[#refused + 1] = refusal(k, meta, known[1])
  else
    local seq, news, error = last, nil, nil
    for i = 0, count - 1 do
      local type, data = ARGV[arg + 2 * i], ARGV[arg + 2 * i + 1]
      if count > 1 then
        seq = string.format('%.0f', before + i + 1)
      end
      local added = pcall('XADD', log, '0-' .. seq, 't', type, 'd', data)
      error = added.err
      if error then
        break
      end
      if count == 1 then
        news = seq .. '\n' .. #type .. ' ' .. #data .. ' 0\n' .. type .. data
      else
        news = news or {seq, '\n'}
        news[#news + 1] = #type .. ' ' .. #data .. ' 0\n'
        news[#news + 1] = type
        news[#news + 1] = data
      end
    end
    if error then
      refused[#refused + 1] = {k, 'broken', error}
    else
      call('HSET', meta, 'last', last)
      call('PUBLISH', log, count == 1 and news or concat(news))
    end
  end
  arg = arg + 2 * count
end
return refused
