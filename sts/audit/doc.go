// Package audit is the append-only, hash-chained, head-signed record of every decision. No record, no
// token: [Log.Append] returns only when the record is where its durability says.
//
// The flow of an append is: encode, chain, write, and (for some) wait for the sync.
//
//   - Each line of a segment is "<hex hash> <json>\n". hash(n) = SHA-256(hash(n-1) || json(n)), the hash before
//     record 1 is 32 zero bytes, and the JSON carries n. Segments are named by their first n and begin with a
//     record that repeats the hash before it.
//   - What was synced is signed at most every 50 ms (Ed25519) in the head file, which lives outside the
//     directory of the log, and at most once a second in a head record of the chain itself. Nothing is ever
//     signed before it was synced, so the head file is true after any power cut.
//   - A process that was killed loses nothing. A power cut loses at most the last 50 ms ([Process]) or
//     nothing that was acknowledged ([Machine]). The next [Open] says so in a recovered record.
//   - Attempts that failed before a signature verified go to [Log.Junk]: exact counts in the chain, samples in two
//     files of bounded size beside it, which prove nothing.
//
// What [Verify] proves, given the public key: no record up to the newest head was edited, deleted, inserted or
// reordered, no end was cut off, and what retention removed was removed by this program. What it cannot
// prove:
//
//   - An attacker who holds the disk and the key can write any history.
//   - An attacker who puts back an older log together with the older head file leaves no trace in the two. Only
//     a witness elsewhere can tell ([Witness], [Log.Head]).
//   - What was appended in the last 50 ms before an unclean end is chained but not signed: whoever could write the
//     disk before the next Open could change that much.
//   - The samples of Junk are not chained.
//
// The package holds no secret and has no field for one. A string in the shape of a JWT is blotted out
// before it is written, wherever it stands.
package audit
