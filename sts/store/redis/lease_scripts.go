package redis

import "github.com/redis/go-redis/v9"

// putLease is compare-and-set of one lease, with all of its indexes. KEYS: the lease, ids, targets, due of its target, of its
// workload, the fingerprint that it had and the one that it has (made of "" for none), below each of its ancestors. ARGV: id,
// target, the revision that was read ("" for none), the new one, the entry, its score, the old and the new fingerprint, three
// limits (0 for none). It answers with a put... code, and three counts when a limit is reached. Sent twice it does no harm: the
// second finds its own revision.
var putLease = redis.NewScript(`
local id, target, old, new, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local have = redis.call('GET', KEYS[1])
local at = have and string.sub(have, 1, 26) or ''
if at == new then return {1} end
if at ~= old then return {0} end
if old == '' then
	local n = {redis.call('SCARD', KEYS[2]), redis.call('ZCARD', KEYS[4]), redis.call('SCARD', KEYS[5])}
	for i = 1, 3 do
		local max = tonumber(ARGV[8 + i])
		if max > 0 and n[i] >= max then return {2, n[1], n[2], n[3]} end
	end
end
if ARGV[7] ~= '' and ARGV[7] ~= ARGV[8] and redis.call('GET', KEYS[6]) == id then redis.call('DEL', KEYS[6]) end
redis.call('SET', KEYS[1], entry)
redis.call('SADD', KEYS[2], id)
redis.call('SADD', KEYS[3], target)
redis.call('ZADD', KEYS[4], ARGV[6], id)
redis.call('SADD', KEYS[5], id)
if ARGV[8] ~= '' then redis.call('SET', KEYS[7], id) end
for i = 8, #KEYS do redis.call('SADD', KEYS[i], id) end
return {1}`)

// dropLeases is compare-and-remove of leases of one target, with all of their indexes. KEYS: ids, targets, due of the target, the
// leases, the fingerprint of each (made of "" for none), and the other indexes. ARGV: target, how many leases, and for each its id, the
// revision that was read, of how many of the other indexes it is, and their places among those. It answers with a put... code for
// each. It calls the server a few times for all of them, not for each: so many that end at once hold up nobody else.
var dropLeases = redis.NewScript(`
local n, at, codes, ids, gone, sets = tonumber(ARGV[2]), 3, {}, {}, {}, {}
local have = redis.call('MGET', unpack(KEYS, 4, 3 + n))
local prints = redis.call('MGET', unpack(KEYS, 4 + n, 3 + 2 * n))
for i = 1, n do
	local id, many = ARGV[at], tonumber(ARGV[at + 2])
	if have[i] and string.sub(have[i], 1, 26) == ARGV[at + 1] then
		codes[i] = 1
		ids[#ids + 1] = id
		gone[#gone + 1] = KEYS[3 + i]
		if prints[i] == id then gone[#gone + 1] = KEYS[3 + n + i] end
		for j = 1, many do
			local set = tonumber(ARGV[at + 2 + j])
			local list = sets[set]
			if not list then
				list = {}
				sets[set] = list
			end
			list[#list + 1] = id
		end
	else
		codes[i] = 0
	end
	at = at + 3 + many
end
if #ids == 0 then return codes end
redis.call('DEL', unpack(gone))
redis.call('SREM', KEYS[1], unpack(ids))
redis.call('ZREM', KEYS[3], unpack(ids))
if redis.call('EXISTS', KEYS[3]) == 0 then redis.call('SREM', KEYS[2], ARGV[1]) end
for set, list in pairs(sets) do redis.call('SREM', KEYS[3 + 2 * n + set], unpack(list)) end
return codes`)

// What putLease and dropLeases answer.
const (
	putLost = iota // the lease is another by now, or gone
	putDone
	putLimit
)

// mendIndex corrects what an index says of a lease, unless the lease has changed since. KEYS: the lease, the index. ARGV: id,
// the revision that was read ("" when there was none), and what the index should say: a score, or "" for nothing.
var mendIndex = redis.NewScript(`
local have = redis.call('GET', KEYS[1])
if (have and string.sub(have, 1, 26) or '') ~= ARGV[2] then return 0 end
if ARGV[3] ~= '' then return redis.call('ZADD', KEYS[2], 'XX', 'CH', ARGV[3], ARGV[1]) end
local kind = redis.call('TYPE', KEYS[2])['ok']
if kind == 'zset' then return redis.call('ZREM', KEYS[2], ARGV[1]) end
if kind == 'set' then return redis.call('SREM', KEYS[2], ARGV[1]) end
if kind == 'string' and redis.call('GET', KEYS[2]) == ARGV[1] then return redis.call('DEL', KEYS[2]) end
return 0`)

// forgetTarget takes a target without leases off the list. KEYS: targets, due of the target. ARGV: the target.
var forgetTarget = redis.NewScript(`
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
return redis.call('SREM', KEYS[1], ARGV[1])`)

// leadLeases takes or keeps the lead. KEYS: lead. ARGV: who asks, milliseconds.
var leadLeases = redis.NewScript(`
local have = redis.call('GET', KEYS[1])
if have and have ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)
