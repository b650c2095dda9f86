package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/sts/config"
)

var schemaFolder = filepath.Join("..", "..", "deploy", "schema")

func TestSchemasAreCurrent(t *testing.T) {
	generated, err := config.Schemas(productKinds(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(generated) != 6 {
		t.Errorf("got %d schemas, want one for each kind of file", len(generated))
	}
	for name, want := range generated {
		path := filepath.Join(schemaFolder, name+".json")
		if *update {
			if err := os.MkdirAll(schemaFolder, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is stale (%v); go generate ./sts/config", path, err)
		}
	}
}

// Whoever hovers over a key reads what it is, its unit, and what happens without it.
func TestEveryPropertyIsDescribed(t *testing.T) {
	generated, err := config.Schemas(productKinds(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range generated {
		var schema any
		if err := json.Unmarshal(data, &schema); err != nil {
			t.Fatal(err)
		}
		properties(schema, name, func(path string, p map[string]any) {
			description, _ := p["description"].(string)
			foreign := strings.Contains(path, ".oidc.") || strings.Contains(path, ".kubernetes.") || strings.Contains(path, ".jwt.")
			switch {
			case p["const"] != nil && len(p) == 1: // a condition, not a key
			case description == "":
				t.Errorf("%s has no description", path)
			case !foreign && p["$comment"] == nil && !slices.ContainsFunc([]string{"Default:", "Required", "No default", "default", "Matches"}, func(s string) bool { return strings.Contains(description, s) }):
				t.Errorf("%s: %q says neither that it is required nor what its default is", path, description)
			}
		})
	}
}

// properties calls f for every declared property.
func properties(schema any, path string, f func(string, map[string]any)) {
	switch s := schema.(type) {
	case []any:
		for _, e := range s {
			properties(e, path, f)
		}
	case map[string]any:
		for key, value := range s {
			if declared, ok := value.(map[string]any); ok && key == "properties" {
				for name, p := range declared {
					f(path+"."+name, p.(map[string]any))
					properties(p, path+"."+name, f)
				}
				continue
			}
			properties(value, path, f)
		}
	}
}

// What loads passes the schema: an editor never marks what the server takes.
func TestWhatLoadsPassesTheSchema(t *testing.T) {
	product, test := compileSchemas(t, productKinds(t)), compileSchemas(t, testKinds(t))
	for _, f := range archive(t, "sample.txtar").Files {
		product.accept(t, f.Name, f.Data)
	}
	for _, f := range archive(t, "base.txtar").Files {
		test.accept(t, f.Name, f.Data)
	}
}

// The schema catches what an editor can know without the other files.
func TestSchemaRefusesMisspeltKeys(t *testing.T) {
	schemas, base := compileSchemas(t, testKinds(t)), archive(t, "base.txtar")
	for _, f := range base.Files {
		for _, k := range keysOf(t, f.Data) {
			if chosenByUser.MatchString(k.path) || strings.Contains(k.path, ".where.") && !strings.HasSuffix(k.path, "prefix") && !strings.HasSuffix(k.path, "contains") {
				continue
			}
			if schemas.check(t, f.Name, k.replaced(f.Data, "x"+k.key)) == nil {
				t.Errorf("%s: %s misspelt passes the schema", f.Name, k.path)
			}
		}
	}
}

func TestSchemaRefusesWhatEditorsCanKnow(t *testing.T) {
	schemas := compileSchemas(t, testKinds(t))
	for _, name := range []string{
		"unknown-key", "not-yet", "wrong-types", "null", "empty-lists", "tls-word", "tls-half", "secret-literal", "secret-both", "secret-none",
		"secret-in-env", "audit-units", "issuer-type-unknown", "issuer-other-block", "issuer-settings-missing", "algorithms", "keys-none",
		"keys-two", "keys-discovery-false", "target-broker", "target-scopes", "rule-effect", "rule-where-shape", "missing-keys",
	} {
		refused := false
		for _, f := range archive(t, filepath.Join("bad", name+".txtar")).Files {
			refused = refused || strings.HasSuffix(f.Name, ".yaml") && schemas.check(t, f.Name, f.Data) != nil
		}
		if !refused {
			t.Errorf("bad/%s.txtar passes the schema", name)
		}
	}
}

type schemas map[string]*jsonschema.Schema

func compileSchemas(t testing.TB, kinds config.Kinds) schemas {
	t.Helper()
	generated, err := config.Schemas(kinds)
	if err != nil {
		t.Fatal(err)
	}
	out, c := schemas{}, jsonschema.NewCompiler()
	for name, data := range generated {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource(name+".json", doc); err != nil {
			t.Fatal(err)
		}
		if out[name], err = c.Compile(name + ".json"); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// check validates one configuration file against the schema of its kind.
func (s schemas) check(t testing.TB, name string, data []byte) error {
	t.Helper()
	kind := map[string]string{"sallyport.yaml": "sallyport", "operators.yaml": "operators", "trust": "trust", "targets": "target", "policy": "policy"}[strings.Split(filepath.ToSlash(name), "/")[0]]
	if strings.HasPrefix(filepath.ToSlash(name), "policy/tests/") {
		kind = "cases"
	}
	if kind == "" {
		t.Fatalf("%s is no configuration file", name)
	}
	var doc any
	if err := yaml.Load(data, &doc); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return s[kind].Validate(doc)
}

func (s schemas) accept(t testing.TB, name string, data []byte) {
	t.Helper()
	if !strings.HasSuffix(name, ".yaml") {
		return
	}
	if err := s.check(t, name, data); err != nil {
		t.Errorf("%s: got %v, want it to pass", name, err)
	}
}
