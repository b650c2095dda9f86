package sts

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"

	"github.com/sallyport-sts/sallyport/brokers"
)

// taken returns the parameters of the request that a broker takes, with their values.
func (r request) taken(b brokers.Broker) url.Values {
	t, ok := b.(brokers.Taker)
	if !ok {
		return nil
	}
	out := url.Values{}
	for _, name := range t.Parameters() {
		out[name] = r.form[name]
	}
	return out
}

// reuseKey is what two exchanges must have in common for one credential to answer both: the workload and the issuer that vouches for it,
// who acts for it, target, rule, scopes, form, parameters, and the configuration. Policy has been asked about each of them before.
func reuseKey(who parties, o brokers.Order, taken url.Values, config string) string {
	g := o.Grant()
	text, err := json.Marshal(struct {
		Workload, Issuer, Target, Rule, Form, Config string
		Actors, Scopes                               []string
		Taken                                        url.Values
	}{
		who.subject.ID(), who.subject.Issuer(), g.Target(), g.Rule(), o.Form(), config,
		o.Lease().Actors, slices.Sorted(slices.Values(g.Scopes())), taken,
	})
	if err != nil {
		return "" // nothing is shared
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
