package brokers

import (
	"encoding/json"
	"fmt"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

// TypePrefix begins the token types of credentials that no standard names (RFC 8693 section 3: any URI may be a type).
const TypePrefix = "https://sallyport-sts.github.io/token-type/"

// NotApplicable is the token_type of what is no OAuth access token (RFC 8693 section 2.2.1).
const NotApplicable = "N_A"

// Object returns a credential of several parts as access_token carries it: compact JSON of fields, a struct whose
// first member says the kind. docs/decisions/0013 says why in this form.
func Object(fields any) (secret.Value, error) {
	b, err := json.Marshal(fields)
	if err != nil {
		return secret.Value{}, fmt.Errorf("encoding a credential of type %T", fields) // err may repeat a value
	}
	return secret.New(string(b)), nil
}
