package brokertest

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sallyport-sts/sallyport/brokers"
)

// CheckForm compares a credential of several parts with the schema of its type, from a test of a package in brokers.
func CheckForm(t testing.TB, c brokers.Credential) {
	t.Helper()
	word, ok := strings.CutPrefix(c.Type, brokers.TypePrefix)
	if !ok || c.TokenType != brokers.NotApplicable {
		t.Fatalf("a credential of type %s and token type %s is not one of several parts", c.Type, c.TokenType)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile(filepath.Join("..", "..", "deploy", "schema", "credential", word+".json"))
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(c.Value.Reveal()))
	if err != nil {
		t.Fatalf("a credential of type %s is not JSON", word)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("a credential of type %s is not what its schema says: %v", word, err)
	}
}
