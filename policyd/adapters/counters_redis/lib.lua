-- What every script begins with: the time, counters, calls and sessions as they lie in Redis.
--
-- Rule 1: a script first works everything out and then writes; the first write is the only one that Redis may refuse
--         (-OOM, -READONLY), so a script happens whole or not at all.
-- Rule 2: amounts are whole numbers up to 2^53 - 1, exact in a double; into text they go by %.0f, never by `..`.
-- Rule 3: nothing relies on a key's expiry: every record says itself until when it counts. Expiry only frees memory.
-- Rule 4: a key that is not in KEYS (a dead call, its counters) has the hash tag of the ones that are.
--
-- Records are lists, packed: half the size and time of named fields. Their places:

local KIND, SPAN, HELD, RUNNING, KEEP, SLOTS, VALUE = 1, 2, 3, 4, 5, 6, 7 -- a counter; slots: born, until, amount, ...
local MEMBERS, WAITING = 8, 9                                             -- of a counter of values: see below
local STAKES, ANSWERS, DUE, RUNS, SETTLED = 1, 2, 3, 4, 5                 -- a call; answers: operation, answer, ...
local HAS, OBSERVED, LAPSED, CHARGED, BORN, MEMBER = 1, 2, 3, 4, 5, 6     -- a call's stake in one counter
local FIRST, CALLS, COST, TOKENS, UNTIL, SKETCH, LIKE = 1, 2, 3, 4, 5, 6, 7 -- a session; like: newest first

local MAX = 9007199254740991
local DISTINCT = 1000       -- different values that one counter tells apart
local DAY = 86400
local REPLACED = DAY        -- seconds that a lapsed lease's charge can still be replaced
local SESSION = DAY         -- seconds that a session outlives its last call
local LEAST, LIKENESSES = 256, 8 -- hashes of a sketch, and likenesses that a session remembers
local OPERATIONS = 64       -- how many operations of one call are recognised
local CROWDED = 15          -- seconds after which to look again for room that running calls hold
local LONGEST = 1e14        -- milliseconds: no key is kept longer
local LIST = 400 * DAY      -- seconds that a tenant's list of leases outlives its newest call
local LIFETIME, IDLE, SLIDING, CALENDAR = 0, 1, 2, 3

local floor, max, min, format = math.floor, math.max, math.min, string.format
local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack

local raw, counters, calls = {}, {}, {} -- by key: as read, and as they stand now
local touched, saved = {}, {}           -- the counters and the calls that changed

local function clock(given)
  if given > 0 then return given end
  local now = call('TIME')
  return now[1] + now[2] / 1000000
end

local function fetch(keys, first)
  local found = call('MGET', unpack(keys, first))
  for i = first, #keys do raw[keys[i]] = found[i - first + 1] end
end

local function read(key)
  local found = raw[key]
  if found == nil then
    found = call('GET', key)
    raw[key] = found
  end
  return found
end

local function put(key, record, seconds)
  call('SET', key, pack(record), 'PX', min(LONGEST, max(1, floor(seconds * 1000) + 1)))
end

-- ---- windows: until when a charge counts, as core/model/windows.py says --------------------------------------------

-- `span` of a calendar: the beginnings of the last periods, this one and the next ones.
local function period_end(span, at)
  for i = 1, #span do
    if span[i] > at then return span[i] end
  end
  return at + span[#span] - span[1] -- beyond what the caller told: it counts longer, never shorter
end

local function counts_until(kind, span, at, running)
  if kind == LIFETIME then return running or at + span end
  if kind == IDLE then return at + span end
  if kind == CALENDAR then return period_end(span, at) end
  if span <= 0 then return at end
  local step = span / 60
  return max((floor(at / step) + 61) * step, at + span)
end

-- Whether the caller's calendar covers this time, by our clock.
local function fits(kind, span, at) return kind ~= CALENDAR or (span[1] <= at and at < span[#span]) end

-- ---- counters -------------------------------------------------------------------------------------------------------

-- Without `kind`, only a counter that is there.
local function counter_at(key, kind, span)
  local counter = counters[key]
  if not counter then
    local found = read(key)
    if found then
      counter = unpacked(found)
    elseif kind then
      counter = {kind, span, 0, 0, 0, {}, 0}
    else
      return nil
    end
    counters[key] = counter
  end
  if kind then counter[SPAN] = span end -- the newest periods of a calendar
  return counter
end

-- The members whose slot has left the window count no more. As adapters/values.py has it.
local function forget(counter)
  local born, slots = {}, counter[SLOTS]
  for i = 1, #slots, 3 do born[slots[i]] = true end
  for member, slot in pairs(counter[MEMBERS]) do
    if not born[slot] then
      counter[MEMBERS][member] = nil
      if counter[WAITING][member] then counter[HELD] = counter[HELD] + 1 end
    end
  end
end

local function value_at(counter, at)
  local slots = counter[SLOTS]
  if not slots[1] or slots[2] > at then return counter[VALUE] end
  local first, left = 1, counter[VALUE]
  while slots[first] and slots[first + 1] <= at do
    left, first = left - slots[first + 2], first + 3
  end
  local rest = {}
  for i = first, #slots do rest[i - first + 1] = slots[i] end
  counter[SLOTS], counter[VALUE] = rest, left
  if counter[MEMBERS] then forget(counter) end
  return left
end

-- Count an amount from `at` on; gives the slot that it went to and how much of it fitted under MAX.
local function charge(counter, amount, at)
  local added = min(amount, MAX - value_at(counter, at))
  local slots = counter[SLOTS]
  local newest = #slots - 2
  local running = slots[newest + 1]
  local ends = counts_until(counter[KIND], counter[SPAN], at, running)
  if running and (ends <= running or counter[KIND] == IDLE) then
    slots[newest + 1] = max(ends, running) -- a clock that was put back never shortens a window
  else
    newest = newest + 3
    slots[newest], slots[newest + 1], slots[newest + 2] = at, ends, 0
  end
  slots[newest + 2] = slots[newest + 2] + added
  counter[VALUE] = counter[VALUE] + added
  return slots[newest], added
end

-- The place of the slot that began at `born`, if it still counts.
local function slot_of(counter, born, at)
  local slots = counter[SLOTS]
  for i = 1, #slots, 3 do
    if slots[i] == born and slots[i + 1] > at then return i end
  end
  return nil
end

local function take_back(counter, stake, at)
  local i = stake[BORN] and slot_of(counter, stake[BORN], at)
  if not i then return end
  counter[SLOTS][i + 2] = counter[SLOTS][i + 2] - stake[CHARGED]
  counter[VALUE] = counter[VALUE] - stake[CHARGED]
end

-- ---- counters of different values: MEMBERS has for each that counts when its slot was born, WAITING for each that
-- running calls have how many of them. VALUE is the number of members, HELD that of waiting values that are none.

local function values_of(counter)
  if not counter[MEMBERS] then counter[MEMBERS], counter[WAITING] = {}, {} end
  return counter
end

local function covers(counter, member) return counter[MEMBERS][member] or counter[WAITING][member] end

-- A call that runs has this value; false where there are too many to be told apart.
local function wait_for(counter, member)
  local waiting = counter[WAITING]
  if not waiting[member] then
    local many = 0
    for _ in pairs(waiting) do many = many + 1 end
    if many >= DISTINCT then return false end
    if not counter[MEMBERS][member] then counter[HELD] = counter[HELD] + 1 end
  end
  waiting[member] = (waiting[member] or 0) + 1
  return true
end

local function unwait(counter, member)
  local waiting = values_of(counter)[WAITING]
  if not waiting[member] then return end
  waiting[member] = waiting[member] > 1 and waiting[member] - 1 or nil
  if not waiting[member] and not counter[MEMBERS][member] then counter[HELD] = max(0, counter[HELD] - 1) end
end

-- Count this value from `at` on, unless there are too many.
local function see(counter, member, at)
  local settled, old = value_at(counter, at), values_of(counter)[MEMBERS][member]
  if not old and settled >= DISTINCT then return end
  local born = charge(counter, 0, at)
  local slots = counter[SLOTS]
  local place = slot_of(counter, born, at)
  if not place then return end
  local before = old and slot_of(counter, old, at)
  if before then
    slots[before + 2] = slots[before + 2] - 1
  else
    counter[VALUE] = counter[VALUE] + 1
    if counter[WAITING][member] then counter[HELD] = max(0, counter[HELD] - 1) end
  end
  slots[place + 2] = slots[place + 2] + 1
  counter[MEMBERS][member] = born
end

local function save_counters(now)
  for key in pairs(touched) do
    local c = counters[key]
    value_at(c, now)
    if c[RUNNING] <= 0 then c[HELD], c[RUNNING], c[KEEP] = 0, 0, 0 end
    if c[RUNNING] <= 0 and c[WAITING] then c[WAITING] = {} end
    local slots = c[SLOTS]
    local keep = max(slots[#slots - 1] or 0, c[KEEP])
    if keep > now then put(key, c, keep - now) elseif raw[key] then call('DEL', key) end
  end
end

-- ---- calls ----------------------------------------------------------------------------------------------------------

local function call_at(key, now)
  local known = calls[key]
  if known == nil then
    local found = read(key)
    known = found and unpacked(found)
    if known and not known[RUNS] and known[DUE] <= now then known = false end -- forgotten
    calls[key] = known
  end
  return known or nil
end

local function new_call() return {{}, {}, 0, false, false} end

local function save_calls(now, keep)
  for key in pairs(saved) do
    local known = calls[key]
    local until_ = keep[key] or known[DUE]
    if until_ > now then put(key, known, until_ - now) else call('DEL', key) end
  end
end

-- A counter and the call outlive the lease, and the window into which its end would be charged: gives until when the
-- call must be kept, and whether it still holds anything.
local function kept(known, due, now)
  local keep, runs = 0, false
  for at, stake in pairs(known[STAKES]) do
    local counter = not stake[LAPSED] and counter_at(at)
    if counter then
      runs = true
      local span = counter[SPAN]
      if counter[KIND] == CALENDAR then span = span[#span] - now end
      local needed = due + max(2 * DAY, span)
      counter[KEEP] = max(counter[KEEP], needed)
      keep = max(keep, needed)
      touched[at] = true
    end
  end
  return keep, runs
end

local function let_go(counter, stake)
  if not stake[MEMBER] then
    counter[HELD] = max(0, counter[HELD] - stake[HAS])
  elseif stake[HAS] > 0 then
    unwait(counter, stake[MEMBER])
  end
  counter[RUNNING] = max(0, counter[RUNNING] - 1)
end

-- ---- leases ---------------------------------------------------------------------------------------------------------

local function lapse(known, remember_s)
  local ended, charged = known[DUE], false
  for key, stake in pairs(known[STAKES]) do
    local counter = counter_at(key)
    if not stake[LAPSED] then
      stake[LAPSED] = true
      if counter then
        let_go(counter, stake)
        if stake[OBSERVED] > 0 and stake[MEMBER] then
          see(counter, stake[MEMBER], ended) -- nothing to be taken back: a late settlement counts the same value
        elseif stake[OBSERVED] > 0 then
          stake[BORN], stake[CHARGED] = charge(counter, stake[OBSERVED], ended)
        end
        touched[key] = true
      end
    end
    charged = charged or stake[CHARGED] > 0
  end
  known[RUNS], known[DUE] = false, ended + max(charged and REPLACED or 0, remember_s)
end

-- Turn the leases that have run out into charges, oldest first, at most so many; gives whether there may be more.
local function reap(leases, now, most, remember_s)
  local dead = call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, most)
  if #dead == 0 then return false end
  local unread = {}
  for _, key in ipairs(dead) do
    if raw[key] == nil then unread[#unread + 1] = key end
  end
  if #unread > 0 then fetch(unread, 1) end
  for _, key in ipairs(dead) do
    local known = call_at(key, now)
    if known and known[RUNS] then
      lapse(known, remember_s)
      saved[key] = true
    end
  end
  return #dead == most, dead
end

-- ---- sessions and answers -------------------------------------------------------------------------------------------

local function session_at(key, now)
  local found = read(key)
  local session = found and unpacked(found)
  return session and session[UNTIL] > now and session or nil
end

local function session_words(key, now)
  local s = session_at(key, now)
  if not s then return '0 0 0 0' end
  local words = {format('%.0f %.0f %.0f %.6f', s[CALLS], s[COST], s[TOKENS], max(0, now - s[FIRST]))}
  for i, like in ipairs(s[LIKE] or {}) do words[i + 1] = format('%.17g', like) end
  return table.concat(words, ',')
end

-- How alike two answers are, by their sketches: as core/model/sketch.py has it, to the last bit.
local function likeness(one, other)
  local i, j, union, shared = 1, 1, 0, 0
  while union < LEAST and (i < #one or j < #other) do
    local a = i < #one and struct.unpack('>I4', one, i) or math.huge
    local b = j < #other and struct.unpack('>I4', other, j) or math.huge
    if a <= b then i = i + 4 end
    if b <= a then j = j + 4 end
    if a == b then shared = shared + 1 end
    union = union + 1
  end
  return 2 * shared / (union + shared)
end

-- A session after one more call of so much money and so many tokens, and of what it said.
local function session_after(s, cost, tokens, sketch, now)
  local like = s[LIKE] or {}
  if sketch ~= '' then
    if s[SKETCH] and s[SKETCH] ~= '' then table.insert(like, 1, likeness(sketch, s[SKETCH])) end
    like[LIKENESSES + 1] = nil
  else
    sketch = s[SKETCH] or ''
  end
  return {s[FIRST], s[CALLS] + 1, min(MAX, s[COST] + cost), min(MAX, s[TOKENS] + tokens), now + SESSION, sketch, like}
end

-- How much of what the counter holds is this call's.
local function own(counter, stake)
  local member = stake[MEMBER]
  if not member then return stake[HAS] end
  local alone = stake[HAS] > 0 and not values_of(counter)[MEMBERS][member] and counter[WAITING][member] == 1
  return alone and 1 or 0
end

-- A `!` at the end: the member that was asked about counts already.
local function counter_words(counter, stake, now, times, member)
  if not counter then return '0 0 0 -' end
  local value = value_at(counter, now)
  local held, granted = counter[HELD], 0
  if stake and stake[LAPSED] then
    granted = stake[CHARGED]
  elseif stake then
    held, granted = held - own(counter, stake), stake[HAS]
  end
  local seen = member and counter[MEMBERS] and counter[MEMBERS][member] and '!' or ''
  return format('%.0f %.0f %.0f %s%s', value, held, granted, times or '-', seen)
end
