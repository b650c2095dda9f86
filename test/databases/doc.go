// Package databases drives a real sallyport process against real servers by what their vendors' clients read: a workload's
// token becomes a login, the client does with it what the scope allows and is refused the rest, and whoever holds it
// revokes it. Then the session that was open is dead, nobody can log in, and neither the server nor the ledger of leases
// knows of it any more.
package databases
