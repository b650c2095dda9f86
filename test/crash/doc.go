// Package crash kills real sallyport processes at every step of minting and of revoking a login of a real PostgreSQL: a
// proxy between the process and the upstream, or between the process and its Redis, counts messages and has the
// process killed (SIGKILL) after the Nth, for every N. Afterwards nothing may be left that works and has no lease, and
// in the end nothing may be left at all.
package crash
