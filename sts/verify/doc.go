// Package verify is for resource servers: services that receive tokens which Sallyport minted for them. It checks
// such a token and says whose it is, who acts, and what it is good for.
//
// A [Verifier] is made once, for one deployment and one audience. [Verifier.Verify] holds a token to RFC 9068
// section 4: compact JWS, an algorithm of the list that the key is bound to, a published key of the issuer, typ
// at+jwt, the exact iss, our aud, exp and nbf with bounded skew, and every claim that section 2.2 requires.
// [Verifier.Middleware] does so for each request and answers as RFC 6750 section 3 says. A [Token] that did not
// pass through here cannot be written down; the zero Token is good for nothing.
//
// Keys are found by the issuer's metadata at first use. They are cached as Cache-Control says, within one minute and
// one hour, and refreshed ahead of their end. An unknown kid makes the verifier read the set once more, at most every
// 30 s. While the issuer cannot be reached, known keys go on for an hour past their life, and then everything is
// refused. Nothing else is ever fetched, whatever a token says.
//
// How soon a revocation is felt depends on the mode:
//
//   - Offline, the default: when the token expires, plus the skew. Lifetimes are minutes.
//   - With [Config.Introspect], the deployment is asked as well (RFC 7662): within [Introspection.MaxAge] after the
//     replica that answers has heard of it. Replicas hear within milliseconds; one that has heard nothing from the
//     others for revocation.max_staleness (5 s by default) refuses to answer. No answer means no access: 503.
//   - With [Config.Follow], the deployment tells of revocations as they happen: within a second, and by
//     [Following.MaxStale] at the latest. Then the deployment is asked, if [Config.Introspect] is set, or nobody is let in.
//   - With [Config.StatusList], a list is read in which each token has a bit (OAuth Token Status List): within ten
//     seconds, for which a list may be kept.
//
// Refused, whoever signed: what is bound to a key (cnf), since no proof of that key is taken here; tokens of targets
// with typ JWT; assertions of the deployment's second issuer; tokens that name an actor by another issuer's word.
//
// Specs: RFC 9068 section 4, RFC 6750 sections 2.1 and 3, RFC 7662, RFC 8725, draft-ietf-oauth-status-list-20.
package verify
