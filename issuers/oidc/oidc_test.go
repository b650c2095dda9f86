package oidc_test

import (
	"encoding/json"
	"errors"
	"flag"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v4"

	"github.com/sallyport-sts/sallyport/federation"
	"github.com/sallyport-sts/sallyport/federation/federationtest"
	"github.com/sallyport-sts/sallyport/issuers/oidc"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// load decodes settings as configuration does: strictly.
func load(text string) (oidc.Settings, error) {
	var s oidc.Settings
	err := yaml.Load([]byte(text), &s, yaml.WithKnownFields())
	return s, err
}

// TestGoldens names signed claims by settings.
func TestGoldens(t *testing.T) {
	federationtest.Goldens(t, *update, "idp", build)
}

func build(settings string) (federation.Adapter, error) {
	s, err := load(settings)
	if err != nil {
		return nil, err
	}
	return oidc.New(s)
}

func run(t *testing.T, settings, claims string) (name, content string) {
	t.Helper()
	adapter, err := build(settings)
	if err != nil {
		return "error.txt", err.Error() + "\n"
	}
	w, err := federationtest.Identify(t, "idp", adapter, []byte(claims))
	if err != nil {
		return "error.txt", err.Error() + "\n"
	}
	return "identity.json", w.ID()
}

// A value of one type is never taken for one of another, converted, or made from a list (standards 4.23).
func TestTypesAreNotConverted(t *testing.T) {
	values := map[string]string{
		"string": `"42"`, "int": `42`, "bool": `true`, "strings": `["a","b"]`,
		"float": `42.0`, "exponent": `42e0`, "fraction": `0.5`, "null": `null`, "object": `{"a":1}`, "mixed": `["a",1]`, "big": `9223372036854775808`,
	}
	for typ := range map[string]bool{"string": true, "int": true, "bool": true, "strings": true} {
		for name, v := range values {
			settings := `{path: [sub], attributes: {x: {claim: x, type: ` + typ + `}}}`
			file, out := run(t, settings, `{"iss":"https://idp.example","aud":"https://sts.example","sub":"a","exp":1790000600,"x":`+v+`}`)
			if ok := file == "identity.json"; ok != (name == typ) {
				t.Errorf("a %s read as %s: %s", name, typ, out)
			}
		}
	}
}

func TestRequiredClaimsAreTypedAndExact(t *testing.T) {
	for _, tc := range []struct {
		required, claim string
		ok              bool
	}{
		{`{x: repo}`, `"repo"`, true}, {`{x: repo}`, `"repo-evil"`, false}, {`{x: repo}`, `"Repo"`, false}, {`{x: repo}`, `["repo"]`, false},
		{`{x: [a, b]}`, `"b"`, true}, {`{x: [a, b]}`, `"c"`, false}, {`{x: [a, b]}`, `["a","b"]`, false},
		{`{x: true}`, `true`, true}, {`{x: true}`, `"true"`, false}, {`{x: "true"}`, `true`, false}, {`{x: "true"}`, `"true"`, true},
		{`{x: 42}`, `42`, true}, {`{x: 42}`, `"42"`, false}, {`{x: "42"}`, `42`, false}, {`{x: 42}`, `42.0`, false},
		{`{x: ""}`, `""`, true}, {`{x: a}`, `null`, false}, {`{x: a, y: b}`, `"a"`, false},
	} {
		file, out := run(t, `{path: [sub], required: `+tc.required+`}`,
			`{"iss":"https://idp.example","aud":"https://sts.example","sub":"a","exp":1790000600,"x":`+tc.claim+`}`)
		if ok := file == "identity.json"; ok != tc.ok {
			t.Errorf("required %s, claim %s: %s", tc.required, tc.claim, out)
		}
	}
}

// Settings that cannot mean anything safe do not load.
func TestSettingsAreRefused(t *testing.T) {
	for _, text := range []string{
		`{}`, `{path: []}`, `{path: sub}`, `{path: [[]]}`, `{path: [""]}`, `{path: [1]}`, `{path: [[sub, 1]]}`, `{path: [true]}`, `{path: [{claim: sub}]}`,
		`{path: [sub], attributes: {x: {}}}`, `{path: [sub], attributes: {x: {claim: x, type: number}}}`, `{path: [sub], attributes: {x: {claim: x, tipe: int}}}`,
		`{path: [sub], attributes: {x: {claim: x, type: String}}}`, `{path: [sub], attributes: {x: y}}`,
		`{path: [sub], required: {x: []}}`, `{path: [sub], required: {x: null}}`, `{path: [sub], required: {x: 1.5}}`, `{path: [sub], required: {x: {y: z}}}`,
		`{path: [sub], required: {x: 010}}`, `{path: [sub], required: {x: 0x10}}`,
		`{path: [sub], requires: {x: y}}`, `{path: [sub], path: [sub]}`, `{path: [[a, b, c, d, e, f, g, h, i]]}`,
		`{path: [id], attributes: {project: {claim: id, type: int}}}`, `{path: [sub, [a, b]], attributes: {x: {claim: [a, b], type: strings}}}`,
	} {
		s, err := load(text)
		if err == nil {
			_, err = oidc.New(s)
		}
		if err == nil {
			t.Errorf("%s: accepted", text)
		}
	}
	s, err := load(`{path: [], attributes: {a: {claim: [], type: x}, b: {claim: [""]}}, required: {c: []}}`)
	if err != nil {
		t.Fatal(err)
	}
	_, err = oidc.New(s)
	for _, part := range []string{"path:", "attributes.a.claim:", "attributes.a.type:", "attributes.b.claim:", "required.c:"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("problems %v lack %s", err, part)
		}
	}
}

func TestEscapeIsReversible(t *testing.T) {
	seen := make(map[string]string)
	for _, s := range []string{
		"a", ".", "..", "...", "_", "__", "_5f", "a/b", "a_2fb", "org:a/b_c", "ä", "a b", "%2f", "-", "A", "\x00", "a.", ".a", "_2e", "_2e_2e",
	} {
		e := oidc.Escape(s)
		if !federation.ValidSegment(e) {
			t.Errorf("Escape(%q) = %q, not a segment", s, e)
		}
		if other, ok := seen[e]; ok {
			t.Errorf("%q and %q both become %q", s, other, e)
		}
		seen[e] = s
		if back, err := oidc.Unescape(e); err != nil || back != s {
			t.Errorf("Unescape(%q) = %q, %v; want %q", e, back, err, s)
		}
	}
	for _, s := range []string{"", "_", "_5", "_5F", "_zz", "_61", "a_", ".", ".."} {
		if back, err := oidc.Unescape(s); err == nil {
			t.Errorf("Unescape(%q) = %q, want an error", s, back)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"a", "..", "a/b", "_5f", "ä\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" {
			return
		}
		e := oidc.Escape(s)
		if back, err := oidc.Unescape(e); err != nil || back != s || !federation.ValidSegment(e) {
			t.Errorf("%q becomes %q becomes %q, %v", s, e, back, err)
		}
		if back, err := oidc.Unescape(s); err == nil && oidc.Escape(back) != s {
			t.Errorf("%q unescapes to %q, which escapes to %q", s, back, oidc.Escape(back))
		}
	})
}

func TestKind(t *testing.T) {
	kind := oidc.Kind()
	if kind.Type() != "oidc" {
		t.Errorf("type %s", kind.Type())
	}
	if _, err := kind.Build(kind.Settings()); err == nil {
		t.Error("empty settings build an adapter")
	}
	settings := kind.Settings()
	if err := yaml.Load([]byte(`{path: [sub], attributes: {team: {claim: [a, b], anchor: true}}}`), settings, yaml.WithKnownFields()); err != nil {
		t.Fatal(err)
	}
	adapter, err := kind.Build(settings)
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := adapter.Schema().Lookup("team"); !ok || a.Type != federation.TypeString || !a.Anchor || a.Doc != "claim a > b" {
		t.Errorf("schema has team %+v", a)
	}
	_, err = federationtest.Identify(t, "idp", adapter, []byte(`{"iss":"https://idp.example","aud":"https://sts.example","sub":"a","exp":1790000600,"a":{"b":1}}`))
	if !errors.Is(err, federation.ErrNaming) {
		t.Errorf("mistyped claim: %v, want ErrNaming", err)
	}
}

func TestSettingsHaveASchema(t *testing.T) {
	b, err := json.Marshal(jsonschema.Reflect(&oidc.Settings{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"oneOf"`, `"path"`, `"enum":["string","strings","bool","int"]`, `"required":["path"]`, `"required":["claim"]`} {
		if !strings.Contains(string(b), part) {
			t.Errorf("schema lacks %s: %s", part, b)
		}
	}
}
