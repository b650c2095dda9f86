// Package federation is door one: whom we believe. It verifies a workload's identity token against
// the issuers trusted in one trust domain and names the workload. It knows nothing of targets, mints
// nothing, stores nothing and speaks no HTTP to callers.
//
// The flow of [Trust.Identify] is: size and charset, strict base64url, header rules, issuer record by exact
// (iss, aud), algorithm list, signature, typ, required claims, exp, nbf, iat, lifetime ceiling, and only
// then the issuer's [Adapter]. An unknown issuer costs no network. The trust domain comes from
// configuration, never from a claim (RFC 8725 section 3.8). A [Workload] that did not pass through here
// cannot be written down.
//
// Keys come from a [KeyCache], which outlives reloads: a [Trust] is immutable and refers to it. Keys are
// fetched at first use by package fetch, refreshed while they are used, and serve for a bounded time when
// an issuer is down.
//
// Refused, whoever signed: JWE, JSON serialization, header members that would have to be obeyed or would
// supply keys, duplicate names, invalid UTF-8, symmetric algorithms, tokens without exp.
//
// Specs: RFC 7515, RFC 7517, RFC 7518, RFC 7519, RFC 8037, RFC 8725, RFC 9068, RFC 9864, OpenID Connect
// Discovery section 4, SPIFFE-ID.
package federation
