"""Scripts that Redis runs in one step, each with its keys and arguments."""

from server.quotes.instrument import LARGEST_WHOLE

LONGEST_LEASE_MS = 60_000
"""Milliseconds. The script ignores a lease that is longer, and longer than ten of the caller's own."""

ACQUIRE_LEASE = f"""
-- KEYS: leader, epoch. ARGV: identity, lease in ms, the epoch that is the caller's own ('0': none),
-- the highest it knows. Returns the epoch in which the caller leads, or below zero if somebody
-- else does: the ms until that one's lease ends; then 1 if Redis did not know of the own epoch.
local function number(text)  -- the epoch, if another can follow it; other programs may write here
    local is = text and #text <= 16 and string.find(text, '^%d+$') and tonumber(text)
    return is and is > 0 and is < {LARGEST_WHOLE} and is or nil
end
local holder, current = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[1] then
    local left = redis.call('PTTL', KEYS[1])
    if left >= 0 and left <= math.max({LONGEST_LEASE_MS}, 10 * ARGV[2]) then
        return {{-math.max(1, left), 0}}
    end
end
local forgotten = ARGV[3] ~= '0' and current ~= ARGV[3] and not number(current)
if forgotten then
    current = ARGV[3]
    redis.call('SET', KEYS[2], current)
elseif current ~= ARGV[3] then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    current = math.max((number(current) or 0) + 1, (number(ARGV[4]) or 0) + 1, now)
    redis.call('SET', KEYS[2], string.format('%.0f', current))
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {{tonumber(current), forgotten and 1 or 0}}
"""
"""Take or renew the lease, and set the epoch. A leader goes on in its epoch in two cases: no instance
took its lapsed lease, or Redis forgot everything. Then no other instance made versions in that epoch.

An epoch is at most LARGEST_WHOLE, which only a foreign value can be near. After such a value, and after
one that is not a number, epochs go on from Redis' clock.
"""

PUBLISH = """
-- KEYS: epoch, quotes, leader, intake, markets, ids, queue, kept. ARGV: epoch, channel, payload ('':
-- only write), mark, the identity that gives its lease up ('': it does not), ids that were counted ('':
-- none), ms for which they are kept, the queue's entry up to which it is not needed ('': leave it), the
-- number of the last batch that Redis answered (0: none), what happened to kept trades ('': nothing),
-- how many entries of that are kept. Then three lists, each behind its length:
-- symbol, snapshot, …; field of the intake, value, …; symbol, market ('': it is open), … Returns 0 if
-- the epoch is an old one, 2 if the mark is older than that batch.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
local known = string.match(redis.call('HGET', KEYS[2], 'meta') or '', '"seq":(%d+)')
local result = tonumber(known or 0) < tonumber(ARGV[9]) and 2 or 1
local at = 12
for list, key in ipairs({KEYS[2], KEYS[4], KEYS[5]}) do
    local last = at + ARGV[at]
    for i = at + 1, last, 2 do
        if ARGV[i + 1] == '' then
            redis.call('HDEL', key, ARGV[i])
        else
            redis.call('HSET', key, ARGV[i], ARGV[i + 1])
        end
    end
    at = last + 1
end
if ARGV[6] ~= '' then
    local time = redis.call('TIME')
    local oldest = string.format('%.0f', time[1] * 1000 - ARGV[7])
    redis.call('XADD', KEYS[6], 'MINID', '~', oldest, '*', 'i', ARGV[6])
end
if ARGV[10] ~= '' then
    -- A step whose answer was lost comes again. Written twice, it would push out an older one.
    local last = redis.call('XREVRANGE', KEYS[8], '+', '-', 'COUNT', 1)[1]
    if not last or last[2][2] ~= ARGV[10] then
        redis.call('XADD', KEYS[8], 'MAXLEN', ARGV[11], '*', 't', ARGV[10])
    end
end
if ARGV[8] ~= '' then
    redis.call('XTRIM', KEYS[7], 'MINID', ARGV[8])
end
if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[2], 'meta', ARGV[4])
    redis.call('PUBLISH', ARGV[2], ARGV[3])
end
if ARGV[5] ~= '' and redis.call('GET', KEYS[3]) == ARGV[5] then
    redis.call('DEL', KEYS[3])
end
return result
"""
"""Publish one batch, fenced: if another instance was elected meanwhile, the script changes nothing. A
restart of Redis may go unnoticed, so the script itself looks whether Redis lost the last batches.
"""

APPEND = """
-- KEYS: queue. ARGV: the most entries, then entries. Returns 0 if they do not all fit. A batch of more
-- fits while half of the queue is free: otherwise it never would.
local most, entries = tonumber(ARGV[1]), #ARGV - 1
if redis.call('XLEN', KEYS[1]) + (entries > most and most / 2 or entries) > most then
    return 0
end
for i = 2, #ARGV do
    redis.call('XADD', KEYS[1], '*', 'b', ARGV[i])
end
return 1
"""
"""Add a batch to the queue, as a whole or not at all."""

READ = """
-- KEYS: a stream. ARGV: an entry, the most entries. Returns those behind it: {id, {field, value, …}}, …
local found = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
if #found > 0 or redis.call('EXISTS', KEYS[1]) == 0 then
    return found
end
local function place(id)
    local ms, number = string.match(id, '^(%d+)-(%d+)$')
    return tonumber(ms), tonumber(number)
end
local ms, number = place(ARGV[1])
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
        local last_ms, last_number = place(info[i + 1])
        if last_ms < ms or (last_ms == ms and last_number < number) then
            return redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[2])
        end
    end
end
return found
"""
"""A script, as its answer has one form, whatever protocol the connection speaks.

If the stream never had the entry, it is a new one under the same key: read it from its beginning. Its
last id stays when entries are trimmed or deleted.
"""

CLAIM = """
-- KEYS: quotes. ARGV: symbol, snapshot, … Returns for each symbol what the hash has now.
local found = {}
for i = 1, #ARGV, 2 do
    redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
    found[#found + 1] = redis.call('HGET', KEYS[1], ARGV[i])
end
return found
"""
"""Agree on the state of each symbol: the first instance that lists it decides."""

DISCARD = """
-- KEYS: quotes. ARGV: symbol, value, … Removes each value that is still there.
for i = 1, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
        redis.call('HDEL', KEYS[1], ARGV[i])
    end
end
"""
"""Remove values that are not snapshots, so that symbols can be claimed."""

MEND = """
-- KEYS: quotes, epoch, leader, watched. ARGV: the type that each is to have. Renames those of another
-- type, and returns their names and types. Without the epoch the leader is told that Redis has
-- forgotten everything, and writes the quotes anew.
local found = {}
for i = 1, #KEYS do
    local is = redis.call('TYPE', KEYS[i])['ok']
    if is ~= 'none' and is ~= ARGV[i] then
        redis.call('RENAME', KEYS[i], KEYS[i] .. ':invalid')
        found[#found + 1] = {KEYS[i], is}
        if i == 1 then
            redis.call('DEL', KEYS[2])
        end
    end
end
return found
"""
"""Used when Redis finds a key of the wrong type, which another program may have written."""

WATCH = """
-- KEYS: watched. ARGV: the time from which on the caller wants reports ('': none), ms after which a
-- report is forgotten, then symbols. Returns Redis' time in ms, and the symbols reported since.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 3, #ARGV do
    redis.call('ZADD', KEYS[1], now, ARGV[i])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + ARGV[2], '+inf')  -- no instance reports that
if ARGV[1] == '' then
    return {now, {}}
end
return {now, redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf')}
"""
"""Report the symbols that an instance watches. The leader also asks for those of all instances."""
