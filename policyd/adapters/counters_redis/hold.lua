-- Hold all or nothing: a reservation, or more for a call that holds already. Either renews the call's lease.
-- KEYS: leases, call, [session,] counters ...    ARGV[2]: the operation
-- ARGV[1]: [now, remember, lease, has a session, is an extension, hold ...]
-- A hold: [least, most, limit or -1, observed, had, window kind, span, member]. `had`: what the holder was granted
-- before; only a Redis that has lost the call looks at it, and holds that much again if it fits. `member`: of a counter
-- of values the one that is to be counted, else empty.
local LEAST, MOST, LIMIT, SEEN, HAD, W_KIND, W_SPAN, NAME, COUNTER, AT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local asked, op = cjson.decode(ARGV[1]), ARGV[2]
local now, remember_s, lease_s, has_session, extends = clock(asked[1]), asked[2], asked[3], asked[4], asked[5]
local leases, key = KEYS[1], KEYS[2]
local shift = (has_session and 3 or 2) - 5 -- from a hold's place in `asked` to its counter's in KEYS
fetch(KEYS, 2)

local known = call_at(key, now)
if known then
  local answers = known[ANSWERS]
  for i = 1, #answers, 2 do
    if answers[i] == op then return answers[i + 1] end
  end
  if known[SETTLED] then return '!settled' end
end
for i = 6, #asked do
  if not fits(asked[i][W_KIND], asked[i][W_SPAN], now) then return '!clock ' .. format('%.6f', now) end
end
local more, dead = reap(leases, now, 100, remember_s)
known = call_at(key, now)
local lost = not known
known = known or new_call()
local stakes = known[STAKES]

for i = 6, #asked do
  local h, at = asked[i], KEYS[shift + i]
  h[COUNTER], h[AT] = counter_at(at, h[W_KIND], h[W_SPAN]), at
  if h[NAME] == '' then h[NAME] = nil else values_of(h[COUNTER]) end
  if lost and h[HAD] > 0 and not stakes[at] then stakes[at] = {h[HAD], h[SEEN], true, 0, false, h[NAME]} end
end

-- How much more room the counter must have for a lapsed hold to be taken again.
local function missing(counter, stake)
  if not stake or not stake[LAPSED] then return 0 end
  local counts = stake[BORN] and slot_of(counter, stake[BORN], now)
  return stake[HAS] - (counts and stake[CHARGED] or 0)
end

-- Whether a value takes room that nothing takes yet: 1 or 0.
local function new_value(h, stake, named)
  local again = stake and stake[LAPSED] and stake[HAS] > 0
  value_at(h[COUNTER], now)
  if named[h[AT] .. h[NAME]] or covers(h[COUNTER], h[NAME]) then return 0 end
  return (h[LEAST] > 0 or h[MOST] > 0 or again) and 1 or 0
end

-- What each is granted, or the first that does not fit.
local function grants()
  local granted, pending, named = {}, {}, {}
  for i = 6, #asked do
    local h = asked[i]
    local counter, stake, limit = h[COUNTER], stakes[h[AT]], h[LIMIT]
    if h[NAME] then
      local new, before = new_value(h, stake, named), pending[h[AT]] or 0
      if new == 1 and limit >= 0 and limit - counter[VALUE] - counter[HELD] < 1 + before then return nil, i end
      granted[i], pending[h[AT]], named[h[AT] .. h[NAME]] = min(h[MOST], 1), before + new, true
    else
      local spoken_for = pending[h[AT]] or missing(counter, stake)
      local room = (limit < 0 and MAX or limit) - value_at(counter, now) - counter[HELD] - spoken_for
      local grant = min(h[MOST], max(0, room))
      if limit >= 0 and (max(0, room) < h[LEAST] or (room < 0 and stake and stake[LAPSED])) then return nil, i end
      granted[i], pending[h[AT]] = grant, spoken_for + grant
    end
  end
  return granted, nil
end

-- Seconds until charges of at least `needed` have left the window.
local function wait(counter, needed)
  if needed <= 0 then return 0 end
  local slots = counter[SLOTS]
  for i = 1, #slots, 3 do
    needed = needed - slots[i + 2]
    if needed <= 0 then return slots[i + 1] - now end
  end
  return nil
end

-- Until enough has left the window or, where only holds are in the way, within a lease. Nil: waiting cannot help.
-- A lease that outlives what calls take says nothing about them: then it is CROWDED.
local function retry_after(h)
  local counter, crowded_s = h[COUNTER], min(lease_s, CROWDED)
  if h[LEAST] > h[LIMIT] then return nil end
  local needed = value_at(counter, now) - h[LIMIT] + h[LEAST]
  local alone, with_holds = wait(counter, needed), wait(counter, needed + counter[HELD])
  if not alone then return nil end
  if alone == 0 then return min(crowded_s, with_holds or crowded_s) end
  return with_holds or max(alone, crowded_s)
end

-- When there may be room again, and when all that is settled has left the window. What has room need not be waited for.
local function times(h, is_refused)
  if h[LIMIT] < 0 then return nil end
  local retry, slots = retry_after(h), h[COUNTER][SLOTS]
  if retry == 0 and not is_refused then retry = nil end
  local resets = value_at(h[COUNTER], now) > 0 and slots[#slots - 1] - now
  return (retry and format('%.6f', retry) or '-') .. '/' .. (resets and format('%.6f', resets) or '-')
end

local granted, refused = grants()
if refused and more then -- nobody is refused over the holds of the dead
  _, dead = reap(leases, now, 2000, remember_s)
  granted, refused = grants()
end

-- ---- taking ---------------------------------------------------------------------------------------------------------

for i = 6, #asked do
  local h = asked[i]
  local counter, stake = h[COUNTER], stakes[h[AT]]
  if not stake and (extends or granted) then
    stake = {0, 0, false, 0, false, h[NAME]}
    stakes[h[AT]] = stake
    counter[RUNNING] = counter[RUNNING] + 1
  end
  if extends then stake[OBSERVED] = h[SEEN] end
  if granted and h[NAME] then
    local wants = stake[HAS] > 0 or granted[i] > 0
    if stake[LAPSED] then
      stake[LAPSED], stake[HAS], counter[RUNNING] = false, 0, counter[RUNNING] + 1
    end
    if wants and stake[HAS] == 0 then stake[HAS] = wait_for(counter, h[NAME]) and 1 or 0 end
  elseif granted then
    if stake[LAPSED] then
      take_back(counter, stake, now)
      stake[LAPSED], stake[CHARGED], stake[BORN] = false, 0, false
      counter[HELD], counter[RUNNING] = counter[HELD] + stake[HAS], counter[RUNNING] + 1
    end
    stake[HAS] = stake[HAS] + granted[i]
    counter[HELD] = counter[HELD] + granted[i]
  end
end

local due = now + lease_s
local keep, runs = kept(known, due, now)
if runs then
  known[RUNS], known[DUE] = true, due
elseif known[DUE] == 0 then
  known[DUE] = now + remember_s
end

local words = {refused and format('%d', refused - 6) or '-1', has_session and session_words(KEYS[3], now) or '-'}
for i = 6, #asked do
  local h = asked[i]
  words[i - 3] = counter_words(h[COUNTER], stakes[h[AT]], now, refused and times(h, i == refused), h[NAME])
end
local answer = table.concat(words, ' ')
local answers = known[ANSWERS]
if #answers >= 2 * OPERATIONS then
  table.remove(answers, 1)
  table.remove(answers, 1)
end
answers[#answers + 1] = op
answers[#answers + 1] = answer

calls[key], saved[key] = known, true
save_calls(now, {[key] = runs and keep or nil})
save_counters(now)
if dead then call('ZREM', leases, unpack(dead)) end
if runs and call('ZADD', leases, due, key) == 1 then call('PEXPIRE', leases, LIST * 1000) end
return answer
