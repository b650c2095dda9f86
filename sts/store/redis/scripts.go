package redis

import "github.com/redis/go-redis/v9"

// KEYS of every script: head, stream, replicas, settling.

// look tells everything that a replica needs to know, at one instant. ARGV: first stream id, how many.
var look = redis.NewScript(`
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
local t = redis.call('TIME')
return {t[1], t[2], run, redis.call('HGETALL', KEYS[1]), redis.call('PTTL', KEYS[4]),
	redis.call('HGETALL', KEYS[3]), redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2])}`)

// begin begins an epoch unless the head is no longer the one that was seen. ARGV: epoch and run id of that head ("" for none),
// an epoch that is new to the replica, the run id, milliseconds to settle.
var begin = redis.NewScript(`
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if (redis.call('HGET', KEYS[1], 'epoch') or '') ~= ARGV[1] or (redis.call('HGET', KEYS[1], 'run') or '') ~= ARGV[2] or run ~= ARGV[4] then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'run', ARGV[4])
redis.call('HSETNX', KEYS[1], 'n', '0')
redis.call('HSETNX', KEYS[1], 'mac', '')
redis.call('SET', KEYS[4], ARGV[3], 'PX', ARGV[5])
return 1`)

// append is compare-and-append. ARGV: epoch, n, mac and run id of the head that the writer has applied, then an
// entry and its MAC for each position that follows.
var appendEntries = redis.NewScript(`
local head = redis.call('HMGET', KEYS[1], 'epoch', 'n', 'mac', 'run')
if head[1] ~= ARGV[1] or head[2] ~= ARGV[2] or head[3] ~= ARGV[3] or head[4] ~= ARGV[4] then return 0 end
if string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') ~= ARGV[4] then return 0 end
local n = tonumber(ARGV[2])
for i = 5, #ARGV, 2 do
	n = n + 1
	redis.call('XADD', KEYS[2], string.format('%s-%d', ARGV[1], n), 'entry', ARGV[i], 'mac', ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'n', string.format('%d', n), 'mac', ARGV[#ARGV])
return 1`)

// trim takes out what expired. ARGV: the old floor, the new one, the MAC of its entry, the sum over both, the first id that stays.
var trim = redis.NewScript(`
if (redis.call('HGET', KEYS[1], 'floor') or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'floor', ARGV[2], 'floor_mac', ARGV[3], 'floor_sum', ARGV[4])
return redis.call('XTRIM', KEYS[2], 'MINID', ARGV[5])`)
