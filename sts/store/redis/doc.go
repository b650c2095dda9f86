// Package redis is the store of several replicas, on Redis 7: single-use marks ([Marks]), the sealed keys ([Keys])
// and the revocations that replicas tell each other ([Replica]). All keys of a deployment have one prefix and one
// hash tag.
//
// # Revocations
//
// Redis is a way for entries to travel, not the place where they are kept: each replica has a synced journal of its
// own and a mirror in memory (package revocation). In Redis there are
//
//	head      epoch, n, mac: the position and the MAC of the newest entry; run: the run id of the Redis process;
//	          floor, floor_mac, floor_sum: everything up to position n=floor has expired and was trimmed
//	stream    an entry for each position since the floor, with the id EPOCH-N: the entry, and its MAC
//	replicas  one field for each replica: when it last looked, and the position up to which it has applied
//	settling  exists for max_staleness after an epoch began
//
// The stream has every entry that is alive, so it is its own snapshot. n has no holes and continues over epochs. An
// entry's MAC, under the deployment's key, covers its position, its content and the MAC of the entry before it: the
// stream is a chain, and an entry that was changed, moved, taken out or put in breaks it.
//
// Append is compare-and-append, one script: the writer has applied everything up to the head that it names, and
// loses to another that was faster; then it reads on and tries again. Names are leases: what is in the stream is
// not appended again.
//
// Every replica looks every 250 ms, and at once when the stream grows. A look is one script, which tells head, run
// id, settling, replicas and the entries from the replica's own position on, that one included. Then:
//
//  1. No head, or one of another run id: Redis was emptied, restarted or replaced, and may have lost what was written
//     last. An epoch begins (one script, one winner): epoch is a greater number than any before, run id is the new
//     one, settling is set. What is in the stream stays.
//  2. The replica's own position is not in the stream with the MAC it remembers, or the head, or a replica's
//     position in this epoch, says that the stream was longer: Redis went back without a new run id. An epoch begins.
//  3. The epoch is not the one that the replica knows: it reads the whole stream from the floor, checks the chain,
//     writes what it does not know to its journal, and appends what its journal has and the stream has not.
//  4. Else it reads on from its position, checks, journals, applies.
//  5. It publishes the position that it has applied.
//
// A replica is fresh when it has done all of that, up to the head, by a look that began at most max_staleness ago,
// and nothing was settling. So an epoch is served from only after every replica that is not stale itself has had
// max_staleness to offer what it knows. An entry whose MAC is wrong, a hole that the floor does not cover, or a floor
// whose MAC is wrong stops step 3 or 4: the replica grows stale and says why, until somebody deletes the keys;
// then step 1 puts back what any living replica has.
//
// A revocation is acknowledged when it is synced in the journal of the replica that was asked, is in the stream, and
// either one other live replica has applied it or a Redis replica has confirmed it (WAIT). If there is neither, the
// journal and Redis are all there is, and that is enough for an answer. When Redis cannot be reached, the revocation
// is durable and in force where it was asked for, the answer is an error, and step 3 or the next look passes it on.
package redis
