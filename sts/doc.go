// Package sts is the protocol server and the exchange pipeline of Sallyport: parse, identify, authorize,
// mint, record, respond ([Exchanger.Exchange], RFC 8693), introspection (RFC 7662), the holder's revocation
// (RFC 7009), metadata (RFC 8414, OpenID Connect Discovery) and the key set (RFC 7517).
//
// It refuses what it does not understand, tells an anonymous caller a constant text and a decision id, and
// issues nothing that is not on record. It knows no platform and no target by name: those come compiled in
// a [State], which a reload swaps as a whole.
package sts
