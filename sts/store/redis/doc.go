// Package redis is the store of several replicas, on Redis 7: single-use marks ([Marks]), the sealed keys ([Keys]),
// the revocations that replicas tell each other ([Replica]) and the leases of what lives outside ([Leases]). All keys of a
// deployment have one prefix and one hash tag.
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
//     position in this epoch, says that the stream was longer, or the head is of an epoch before one that the replica has seen:
//     Redis went back without a new run id. An epoch begins.
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
//
// # Leases
//
// Redis is where leases are kept, each in a key of its own:
//
//	lease:ID              a random revision, a MAC, the lease as JSON
//	leases                ids of all; limits in total are its size
//	leases:targets        targets that have leases
//	leases:due:TARGET     ids of a target by when they are due, in microseconds; limits per target are its size
//	leases:of:WORKLOAD    ids of a workload; limits per workload are its size
//	leases:below:ID       ids of the leases that descend from ID
//	leases:print:SHA256   the id of a credential
//	leases:lead           who cleans up, for 5 s since he last said so
//
// A lease is written by one script, which compares the revision that was read and writes it with all of its indexes; it goes
// with all of them. Whoever loses the race reads again. Two hundred leases are read in one round trip and written in
// another. A revision that is found to be one's own is a script that was sent twice. What is written is as durable as
// Redis makes it: with appendfsync always nothing is lost that was answered, else up to the last second.
//
// Indexes only propose: what they say is asked of the lease itself, corrected where it is wrong, and made anew from the
// leases' keys by every replica that begins to lead ([Leases.Rebuild]). What is overdue is found by looking at all leases.
//
// Somebody who writes to this Redis, without our key,
//
//   - cannot make us kill: the MAC covers the lease and the name of its key, so no entry can be made up, changed, or put
//     in the place of another. Such an entry is reported and not acted upon, not even by the name it holds, or he would choose
//     what we kill. It is left where it is for a week, because keys that were restored make it good again.
//   - cannot learn what brokers need to take a credential back, nor put in another's: it is sealed, for its lease.
//   - cannot hide a lease by its indexes for longer than a minute, nor have a credential found that is another's.
//   - can delete a lease, or spoil it, which is the same: what it is about is no longer killed when it is revoked or
//     expires. It dies by itself where the upstream has an expiry, and the reaper finds it by its name where the upstream can
//     list it, half a minute after its expiry: a credential lives minutes. Revoked, it works until then.
//   - can put back an older entry of the same lease: what is dead is killed once more and found gone; what was to be killed
//     is found again when it was revoked, or else dies when it expires.
//   - can hold the lead, so that nobody cleans up: whoever is asked to revoke kills all the same, and the oldest kill that
//     waits is exported.
//   - can fill indexes, so that limits refuse.
//
// Redis that comes back empty, or older, has forgotten leases: the same as if somebody had deleted them. No replica keeps a
// journal of leases as it does of revocations. An eviction policy other than noeviction does the same; do not have one.
package redis
