-- Drop a call's holds and count what it used, above limits too, once.
-- KEYS: leases, call, [session,] counters ...
-- ARGV[1]: [now, remember, session or false, charge ...]; session [cost, tokens]; charge [amount, window kind, span, member]
-- ARGV[2]: the sketch of what the session was answered; empty: nothing
local asked = cjson.decode(ARGV[1])
local now, remember_s, adds = clock(asked[1]), asked[2], asked[3]
local leases, key = KEYS[1], KEYS[2]
local shift = (adds and 3 or 2) - 3 -- from a charge's place in `asked` to its counter's in KEYS
fetch(KEYS, 2)

local known = call_at(key, now)
if known and known[SETTLED] then return known[SETTLED] end
for i = 4, #asked do
  if not fits(asked[i][2], asked[i][3], now) then return '!clock ' .. format('%.6f', now) end
end
local _, dead = reap(leases, now, 100, remember_s)
known = call_at(key, now) or new_call()

for at, stake in pairs(known[STAKES]) do
  local counter = counter_at(at)
  if counter then
    if stake[LAPSED] then take_back(counter, stake, now) else let_go(counter, stake) end
    touched[at] = true
  end
end
local ran = known[RUNS]
known[STAKES], known[RUNS], known[DUE] = {}, false, now + remember_s

for i = 4, #asked do
  local a, at = asked[i], KEYS[shift + i]
  local counter = counter_at(at, a[2], a[3])
  if a[1] > 0 then
    if a[4] ~= '' then see(counter, a[4], now) else charge(counter, a[1], now) end
    touched[at] = true
  end
end
local words = {'-1 -'}
for i = 4, #asked do words[i - 2] = counter_words(counters[KEYS[shift + i]], nil, now, nil, asked[i][4]) end
local answer = table.concat(words, ' ')
known[SETTLED] = answer

calls[key], saved[key] = known, true
save_calls(now, {})
save_counters(now)
if ran then call('ZREM', leases, key) end
if dead then call('ZREM', leases, unpack(dead)) end
if adds then
  local s = session_at(KEYS[3], now) or {now, 0, 0, 0, 0}
  put(KEYS[3], session_after(s, adds[1], adds[2], ARGV[2] or '', now), SESSION)
end
return answer
