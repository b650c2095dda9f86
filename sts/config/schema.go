package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/sallyport-sts/sallyport/federation/secret"
)

//go:generate go test . -run TestSchemasAreCurrent -update

// Schemas returns a JSON Schema (2020-12) for each kind of file, for editors: "sallyport", "trust",
// "operators", "target", "policy" and "cases". They are generated from the types that files are decoded into, with the settings
// of every kind that the binary knows. What passes them can still be refused by [Load], never the reverse.
func Schemas(kinds Kinds) (map[string][]byte, error) {
	own := jsonschema.Reflector{FieldNameTag: "yaml", DoNotReference: true, Anonymous: true}

	server := own.Reflect(&serverFile{})
	server.Title = "Sallyport: sallyport.yaml, the service"

	trust := own.Reflect(&trustFile{})
	trust.Title = "Sallyport: trust/*.yaml, door one: whom we believe"
	addPlatforms(trust, "issuers", kinds)

	operators := own.Reflect(&operatorsFile{})
	operators.Title = "Sallyport: operators.yaml, who may respond"
	addPlatforms(operators, "people", kinds)

	target := own.Reflect(&targetFile{})
	target.Title = "Sallyport: targets/*.yaml, what can be asked for"
	for _, name := range kinds.Brokers.Names() {
		kind, _ := kinds.Brokers.Lookup(name)
		addBlock(target, "broker", name, kind.Settings())
		addScope(target, name, kind.Scope())
	}

	rules := own.Reflect(&policyFile{})
	rules.Title = "Sallyport: policy/*.yaml, door two: who may have what"

	cases := own.Reflect(&caseFile{})
	cases.Title = "Sallyport: policy/tests/*.yaml, what the policy must answer"

	out := map[string][]byte{}
	for name, s := range map[string]*jsonschema.Schema{"sallyport": server, "trust": trust, "operators": operators, "target": target, "policy": rules, "cases": cases} {
		data, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("schema %s: %w", name, err)
		}
		out[name] = append(data, '\n')
	}
	return out, nil
}

// addPlatforms adds the settings of every platform to the issuers in a list.
func addPlatforms(file *jsonschema.Schema, key string, kinds Kinds) {
	list, _ := file.Properties.Get(key)
	var platforms []string
	for _, typ := range kinds.Issuers.Types() {
		settings, _ := kinds.Issuers.Settings(typ)
		if _, ok := kinds.Issuers.Platform(typ); ok {
			addInEntry(list.Items, typ, settings)
			platforms = append(platforms, typ)
			continue
		}
		addBlock(list.Items, "type", typ, settings)
	}
	excusePlatforms(list.Items, platforms)
}

// addBlock adds the settings of one kind to an entry, accepted only where selector names that kind.
func addBlock(entry *jsonschema.Schema, selector, name string, settings any) {
	foreign := jsonschema.Reflector{DoNotReference: true, Anonymous: true, Mapper: settingTypes} // settings describe themselves by json tags
	block := foreign.Reflect(settings)
	block.Version = ""
	block.Description = fmt.Sprintf("Settings of %s: %s. Default: none are set.", selector, name)
	entry.Properties.Set(name, block)
	if chooser, ok := entry.Properties.Get(selector); ok {
		chooser.Enum = append(chooser.Enum, name)
	}
	is := jsonschema.NewProperties()
	is.Set(selector, &jsonschema.Schema{Const: name})
	if entry.DependentSchemas == nil {
		entry.DependentSchemas = map[string]*jsonschema.Schema{}
	}
	entry.DependentSchemas[name] = &jsonschema.Schema{Properties: is}
	if len(block.Required) > 0 {
		entry.AllOf = append(entry.AllOf, &jsonschema.Schema{
			If:   &jsonschema.Schema{Properties: is, Required: []string{selector}},
			Then: &jsonschema.Schema{Required: []string{name}},
		})
	}
}

// addScope says what a scope of one kind's targets means.
func addScope(entry *jsonschema.Schema, name string, scope any) {
	foreign := jsonschema.Reflector{DoNotReference: true, Anonymous: true, Mapper: settingTypes}
	meaning := foreign.Reflect(scope)
	meaning.Version = ""
	is, then := jsonschema.NewProperties(), jsonschema.NewProperties()
	is.Set("broker", &jsonschema.Schema{Const: name})
	then.Set("scopes", &jsonschema.Schema{AdditionalProperties: meaning, Description: fmt.Sprintf("What each scope means to the broker %s. Default: the target has no scopes.", name)})
	entry.AllOf = append(entry.AllOf, &jsonschema.Schema{
		If:   &jsonschema.Schema{Properties: is, Required: []string{"broker"}},
		Then: &jsonschema.Schema{Properties: then},
	})
}

// addInEntry adds the settings of a well-known platform to the entry itself, accepted only where type says it.
func addInEntry(entry *jsonschema.Schema, typ string, settings any) {
	foreign := jsonschema.Reflector{DoNotReference: true, Anonymous: true, Mapper: settingTypes}
	own := foreign.Reflect(settings)
	is := jsonschema.NewProperties()
	is.Set("type", &jsonschema.Schema{Const: typ})
	if entry.DependentSchemas == nil {
		entry.DependentSchemas = map[string]*jsonschema.Schema{}
	}
	for p := own.Properties.Oldest(); p != nil; p = p.Next() {
		p.Value.Description = "With type " + typ + ": " + p.Value.Description
		entry.Properties.Set(p.Key, p.Value)
		entry.DependentSchemas[p.Key] = &jsonschema.Schema{Properties: is}
	}
	if chooser, ok := entry.Properties.Get("type"); ok {
		chooser.Enum = append(chooser.Enum, typ)
	}
}

// excusePlatforms lets entries of well-known platforms leave algorithms and keys out.
func excusePlatforms(entry *jsonschema.Schema, platforms []string) {
	if len(platforms) == 0 {
		return
	}
	known := []string{"algorithms", "keys"}
	entry.Required = slices.DeleteFunc(entry.Required, func(key string) bool { return slices.Contains(known, key) })
	for _, typ := range platforms {
		is := jsonschema.NewProperties()
		is.Set("type", &jsonschema.Schema{Const: typ})
		entry.AnyOf = append(entry.AnyOf, &jsonschema.Schema{Properties: is})
	}
	entry.AnyOf = append(entry.AnyOf, &jsonschema.Schema{Required: known})
}

// settingTypes describes types of settings that are written otherwise than Go prints them.
func settingTypes(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return duration("").JSONSchema()
	case reflect.TypeFor[secret.Ref]():
		own := jsonschema.Reflector{FieldNameTag: "yaml", DoNotReference: true, Anonymous: true}
		ref := own.Reflect(&Secret{})
		ref.Version = ""
		return ref
	}
	return nil
}

// JSONSchema describes a duration.
func (duration) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: durationPattern, MinLength: count(2)}
}

// JSONSchema describes a size.
func (size) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: sizes.String()}
}

// JSONSchema describes the two forms.
func (tlsBlock) JSONSchema() *jsonschema.Schema {
	type plain tlsBlock // without this method
	own := jsonschema.Reflector{FieldNameTag: "yaml", DoNotReference: true, Anonymous: true}
	files := own.Reflect(&plain{})
	files.Version = ""
	return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Const: "off"}, files}}
}

// JSONSchema describes the forms of a matcher.
func (whereValue) JSONSchema() *jsonschema.Schema {
	word := &jsonschema.Schema{Type: "string", MinLength: count(1)}
	value := []*jsonschema.Schema{word, {Type: "integer"}, {Type: "boolean"}}
	one := func(key, description string) *jsonschema.Schema {
		p := jsonschema.NewProperties()
		p.Set(key, &jsonschema.Schema{Type: "string", MinLength: count(1), Description: description})
		return &jsonschema.Schema{Type: "object", Properties: p, Required: []string{key}, AdditionalProperties: jsonschema.FalseSchema}
	}
	return &jsonschema.Schema{
		Description: "What one attribute must be: a value, one of a list, {prefix: PATH} or {contains: VALUE}. Compared exactly, type included; no wildcards.",
		OneOf: append(value,
			&jsonschema.Schema{Type: "array", MinItems: count(1), Items: &jsonschema.Schema{OneOf: value}},
			one("prefix", "Matches a string that is this path or below it, by whole segments."),
			one("contains", "Matches a list that has this element."),
		),
	}
}

// JSONSchema describes a JWK set as far as editors need it.
func (inlineJWKS) JSONSchema() *jsonschema.Schema {
	p := jsonschema.NewProperties()
	p.Set("keys", &jsonschema.Schema{
		Type: "array", MinItems: count(1), Items: &jsonschema.Schema{Type: "object"},
		Description: "Public keys as JWKs (RFC 7517 section 4). Required.",
	})
	return &jsonschema.Schema{Type: "object", Properties: p, Required: []string{"keys"}}
}

// JSONSchema describes a claim set.
func (caseClaims) JSONSchema() *jsonschema.Schema { return &jsonschema.Schema{Type: "object"} }

// JSONSchema describes a key that is true or not there.
func (opening) JSONSchema() *jsonschema.Schema { return &jsonschema.Schema{Const: true} }

// JSONSchemaExtend demands exactly one answer.
func (expectBlock) JSONSchemaExtend(s *jsonschema.Schema) { s.OneOf = oneRequired("allow", "refuse") }

// JSONSchema describes a scope's settings.
func (scopeSettings) JSONSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "object", Description: "What the scope means to the broker. Where it means nothing more than its name, as with jwt, it is {}."}
}

// JSONSchemaExtend demands exactly one reference.
func (Secret) JSONSchemaExtend(s *jsonschema.Schema) { s.OneOf = oneRequired("file", "env") }

// JSONSchemaExtend demands exactly one source.
func (keysBlock) JSONSchemaExtend(s *jsonschema.Schema) {
	s.OneOf = oneRequired("discovery", "jwks_url", "jwks_file", "inline")
	if p, ok := s.Properties.Get("discovery"); ok {
		p.Const = true
	}
}

// JSONSchemaExtend refuses an empty mapping.
func (targetFile) JSONSchemaExtend(s *jsonschema.Schema) { notEmpty(s, "scopes") }

// JSONSchemaExtend refuses an empty mapping.
func (workloadsBlock) JSONSchemaExtend(s *jsonschema.Schema) { notEmpty(s, "where") }

func notEmpty(s *jsonschema.Schema, key string) {
	if p, ok := s.Properties.Get(key); ok {
		p.MinProperties = count(1)
	}
}

func oneRequired(keys ...string) []*jsonschema.Schema {
	out := make([]*jsonschema.Schema, len(keys))
	for i, k := range keys {
		out[i] = &jsonschema.Schema{Required: []string{k}}
	}
	return out
}

func count(n uint64) *uint64 { return &n }
