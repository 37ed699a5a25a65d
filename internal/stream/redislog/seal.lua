-- Ends a stream, whoever runs it.
-- KEYS: log meta
-- ARGV: prefix id sealer shown type data recovery now retention by
local meta = KEYS[2]
local how = {
  prefix = ARGV[1], sealer = ARGV[3], type = ARGV[5], data = ARGV[6], recovery = ARGV[7],
  now = ARGV[8], retention = ARGV[9], by = ARGV[10],
}
local known = redis.call('HMGET', meta, 'last', 'end', 'ended_by', 'producer')
if not known[1] then
  return {'missing'}
end
if known[2] then
  return {known[3] == how.by and 'ok' or 'sealed', known[2]}
end
if tonumber(known[1]) < tonumber(ARGV[4]) then
  return {'last', known[1]} -- the server has lost what the producer has shown
end
if known[4] ~= how.sealer and how.recovery == '0' then
  how.recovery = '1' -- only its producer knows what a reader may have seen
end
return {'ok', seal(ARGV[2], how)}
