-- Give back what one operation was granted, as if it had not been asked: another part of it was refused elsewhere.
-- KEYS: leases, call, counters ...    ARGV[1]: [now, amount ...]    ARGV[2]: the operation
local asked, op = cjson.decode(ARGV[1]), ARGV[2]
local now, key = clock(asked[1]), KEYS[2]
fetch(KEYS, 2)

local known = call_at(key, now)
if not known or known[SETTLED] then return '-1 -' end
local answers, found = known[ANSWERS], false
for i = #answers - 1, 1, -2 do
  if answers[i] == op then
    table.remove(answers, i)
    table.remove(answers, i)
    found = true
  end
end
if not found then return '-1 -' end
for i = 3, #KEYS do
  local counter, stake = counter_at(KEYS[i]), known[STAKES][KEYS[i]]
  if counter and stake then
    local amount = min(asked[i - 1], stake[HAS])
    stake[HAS] = stake[HAS] - amount
    if stake[MEMBER] then
      if amount > 0 and not stake[LAPSED] then unwait(counter, stake[MEMBER]) end
    elseif not stake[LAPSED] then
      counter[HELD] = counter[HELD] - amount
    end
    touched[KEYS[i]] = true
  end
end
local keep, runs = kept(known, known[DUE], now)
calls[key], saved[key] = known, true
save_calls(now, {[key] = runs and keep or nil})
save_counters(now)
return '-1 -'
