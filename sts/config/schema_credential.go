package config

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/sallyport-sts/sallyport/brokers"
)

// CredentialSchemas returns a JSON Schema (2020-12) of what access_token holds for each issued_token_type of ours that the
// binary knows, by the last word of the type. Each schema's id is the type.
func CredentialSchemas(set brokers.Set) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, name := range set.Names() {
		kind, _ := set.Lookup(name)
		for form, zero := range kind.Capabilities().Credentials {
			word, ok := strings.CutPrefix(form, brokers.TypePrefix)
			if !ok {
				return nil, fmt.Errorf("broker %s: %s is no type of ours", name, form)
			}
			var s *jsonschema.Schema
			if _, opaque := zero.(string); opaque {
				s = &jsonschema.Schema{Version: jsonschema.Version, Type: "string", Description: "One opaque string; it is not JSON, and access_token is it."}
			} else {
				own := jsonschema.Reflector{DoNotReference: true, Anonymous: true, AllowAdditionalProperties: true} // clients ignore what a later version adds
				s = own.Reflect(zero)
				if kind, ok := s.Properties.Get("type"); ok {
					kind.Const = word
				}
			}
			s.ID, s.Title = jsonschema.ID(form), "Sallyport: a credential of type "+word
			data, err := json.MarshalIndent(s, "", "  ")
			if err != nil {
				return nil, fmt.Errorf("schema of %s: %w", form, err)
			}
			out[word] = append(data, '\n')
		}
	}
	return out, nil
}
