// Package vault runs a real Vault and a real PostgreSQL for tests, and drives the product's broker against them: what the
// commands of "sallyport trust vault" set up, what an exchange makes, and what is left of it after a revocation. Certificates
// that its pki engine signs are shown to servers.
//
// The server is Vault v1.14.1, built once from its Go module (server, a module of its own) into the user's cache
// directory: the released binary is no module. Its sdk module lacks two functions that its transit and pki engines name, and
// gets stand-ins that refuse (server/added); nothing calls them here. OpenBao's server is no module that can be installed either; its client is, and reads here what
// the broker made.
//
// Run it with
//
//	go -C test/vault run ./build && go -C test/vault test -count=1 -timeout 10m ./...
//
// A server that is missing is an error and never a skip.
package vault
