-- KEYS: leases, [session,] counters ...    ARGV[1]: [now, remember, has a session, [member or empty, of each counter]]
local now_given, remember_s, has_session, members = unpack(cjson.decode(ARGV[1]))
local now = clock(now_given)
local leases = KEYS[1]
if #KEYS > 1 then fetch(KEYS, 2) end
local _, dead = reap(leases, now, 1000, remember_s)
local words = {'-1', has_session and session_words(KEYS[2], now) or '-'}
local first = has_session and 3 or 2
for i = first, #KEYS do
  words[#words + 1] = counter_words(counter_at(KEYS[i]), nil, now, nil, members[i - first + 1])
end
if dead then
  save_calls(now, {})
  save_counters(now)
  call('ZREM', leases, unpack(dead))
end
return table.concat(words, ' ')
