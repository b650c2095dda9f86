// Package lease is the ledger of credentials that live outside: a database login, a Vault token. Each is a [Lease] from
// before it exists until it is seen dead upstream, so that nothing works which nobody knows of:
//
//	Open (synced) ──▶ broker mints ──▶ Complete (synced) ──▶ the caller has it ──▶ expired or revoked ──▶ killed ──▶ Remove
//	      │                │                 │
//	      └── a crash anywhere here leaves a lease in state minting, which is killed by its name when the mint's time is over
//
// [Keeper] is the only way to mint such a credential. It kills what expired, what was revoked, and what was abandoned,
// target by target: a target that does not answer holds up nobody else, and what it still holds stays pending until it
// answers. Of several replicas one leads and does this for all; whoever is asked to revoke kills at once himself.
// A sweep over the names that stand upstream finds even what no ledger remembers.
//
// Records are kept behind [Store]; what a broker needs to take a credential back is sealed there, bound to its lease.
package lease
