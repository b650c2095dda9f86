// Package verify is for resource servers: services that receive tokens which Sallyport minted for them. It checks
// such a token and says whose it is, who acts, and what it is good for.
//
// A [Verifier] is made once, for one deployment and one audience. [Verifier.Verify] holds a token to RFC 9068
// section 4: compact JWS, an algorithm of the list that the key is bound to, a published key of the issuer, typ
// at+jwt, the exact iss, our aud, exp and nbf with bounded skew, and every claim that section 2.2 requires.
// A [Token] that did not pass through here cannot be written down; the zero Token is good for nothing.
//
// Keys are found by the issuer's metadata at first use. They are cached as Cache-Control says, within one minute and
// one hour, and refreshed ahead of their end. An unknown kid makes the verifier read the set once more, at most every
// 30 s. While the issuer cannot be reached, known keys go on for an hour past their life, and then everything is
// refused. Nothing else is ever fetched, whatever a token says.
//
// A revocation is felt when the token expires, plus the skew. Lifetimes are minutes.
//
// Refused, whoever signed: what is bound to a key (cnf), since no proof of that key is taken here; tokens of targets
// with typ JWT; assertions of the deployment's second issuer; tokens that name an actor by another issuer's word.
//
// Specs: RFC 9068 section 4, RFC 8725.
package verify
