package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"

	"github.com/sallyport-sts/sallyport/federation"
)

// Names of the types that conditions see. They have spaces, so that no expression can construct one.
const (
	targetType  = "the target"
	requestType = "the request"
	envType     = "the environment"
)

// dialect is what makes two conditions differ in the names they may use.
type dialect struct {
	workload source
	actor    source // the zero source: the variable is not there
}

// source is an issuer, or every issuer of a trust domain when issuer is "".
type source struct{ trustDomain, issuer string }

// object and attributes name the types of a workload of this source, and of its attributes, in one role.
func (s source) object(role string) string { return role + " of " + s.trustDomain + "/" + s.issuer }

func (s source) attributes(role string) string {
	return "attributes of " + role + "s of " + s.trustDomain + "/" + s.issuer
}

// dialect returns what the condition of r may name.
func (c *checker) dialect(r *Rule) dialect {
	d := dialect{workload: source{r.Workloads.TrustDomain, r.Workloads.Issuer}}
	if r.Actors != nil && r.Effect == Allow {
		d.actor = source{r.Actors.TrustDomain, r.Actors.Issuer}
	}
	c.languages.schema(d.workload, c.issuers)
	c.languages.schema(d.actor, c.issuers)
	return d
}

// languages are those of one policy while it is compiled.
type languages struct {
	schemas map[source]federation.Schema
	known   map[dialect]*language
	alike   map[string]source // the first with the same names and types
}

func newLanguages() languages {
	return languages{schemas: map[source]federation.Schema{}, known: map[dialect]*language{}, alike: map[string]source{}}
}

// shared returns the dialect of the first issuers whose attributes have the same names and types. An environment of CEL
// takes some 60 KiB, and a thousand clusters need but one.
func (l languages) shared(d dialect) dialect { return dialect{l.first(d.workload), l.first(d.actor)} }

func (l languages) first(s source) source {
	if s == (source{}) {
		return s
	}
	schema, ok := l.schemas[s]
	names := fmt.Sprint(ok, " ")
	for _, a := range schema {
		names += a.Name + " " + a.Type.String() + " "
	}
	if _, ok := l.alike[names]; !ok {
		l.alike[names] = s
	}
	return l.alike[names]
}

// language is one CEL environment and what was compiled in it.
type language struct {
	env      *cel.Env
	names    []string // every field there is, for hints
	compiled map[string]*condition
}

func (l languages) schema(s source, issuers map[string]map[string]federation.Schema) {
	if s.issuer != "" {
		l.schemas[s] = issuers[s.trustDomain][s.issuer]
	}
}

// language returns the CEL environment of a dialect: the standard library without what hides a typo (dyn, type),
// asks for absence (has) or compares by pattern (matches), and functions for network addresses.
func (l languages) language(d dialect) (*language, error) {
	if known, ok := l.known[d]; ok {
		return known, nil
	}
	registry, err := types.NewRegistry()
	if err != nil {
		return nil, fmt.Errorf("starting CEL: %w", err)
	}
	p := &provider{Registry: registry, fields: fields(d, l.schemas)}
	options := []cel.EnvOption{
		cel.CustomTypeAdapter(registry),
		cel.CustomTypeProvider(p),
		cel.StdLib(cel.StdLibSubset(&env.LibrarySubset{
			ExcludeMacros:    []string{"has"},
			ExcludeFunctions: []*env.Function{env.NewFunction("dyn"), env.NewFunction("type"), env.NewFunction("matches")},
		})),
		ext.Network(),
		cel.ExtendedValidations(),
		cel.Variable("workload", types.NewObjectType(d.workload.object("workload"))),
		cel.Variable("target", types.NewObjectType(targetType)),
		cel.Variable("request", types.NewObjectType(requestType)),
		cel.Variable("env", types.NewObjectType(envType)),
	}
	if d.actor != (source{}) {
		options = append(options, cel.Variable("actor", types.NewObjectType(d.actor.object("actor"))))
	}
	e, err := cel.NewCustomEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("starting CEL: %w", err)
	}
	known := &language{env: e, compiled: map[string]*condition{}}
	for _, f := range p.fields {
		known.names = append(known.names, keys(f)...)
	}
	slices.Sort(known.names)
	known.names = slices.Compact(known.names)
	l.known[d] = known
	return known, nil
}

// provider knows the types of one dialect, field by field. Objects of them come from a request and from nowhere
// else.
type provider struct {
	*types.Registry
	fields map[string]map[string]*types.FieldType
}

// FindStructType implements CEL's Provider.
func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if _, ok := p.fields[name]; ok {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return p.Registry.FindStructType(name)
}

// FindStructFieldNames implements CEL's Provider.
func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	if f, ok := p.fields[name]; ok {
		return keys(f), true
	}
	return p.Registry.FindStructFieldNames(name)
}

// FindStructFieldType implements CEL's Provider.
func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if f, ok := p.fields[name]; ok {
		ft, ok := f[field]
		return ft, ok
	}
	return p.Registry.FindStructFieldType(name, field)
}

// NewValue implements CEL's Provider.
func (p *provider) NewValue(name string, given map[string]ref.Val) ref.Val {
	if _, ok := p.fields[name]; ok {
		return types.NewErr("%s cannot be made up", name)
	}
	return p.Registry.NewValue(name, given)
}

var (
	errNotThere = errors.New("is absent")
	errObject   = errors.New("is not what its type says")
)

// fields lists the types of a dialect.
func fields(d dialect, schemas map[source]federation.Schema) map[string]map[string]*types.FieldType {
	out := map[string]map[string]*types.FieldType{
		targetType: {
			"name":     field(cel.StringType, func(t *Target) (any, error) { return t.Name, nil }),
			"resource": field(cel.StringType, func(t *Target) (any, error) { return t.Resource, nil }),
		},
		requestType: {
			"scopes": field(cel.ListType(cel.StringType), func(v *view) (any, error) { return v.scopes, nil }),
		},
		envType: {
			"time": field(cel.TimestampType, func(v *view) (any, error) { return v.time, nil }),
			"source_ip": field(ext.IPType, func(v *view) (any, error) {
				if !v.address.IsValid() {
					return nil, errNotThere
				}
				return plain(v.address), nil
			}),
		},
	}
	for role, s := range map[string]source{"workload": d.workload, "actor": d.actor} {
		if s == (source{}) {
			continue
		}
		object := map[string]*types.FieldType{
			"id":           field(cel.StringType, func(w *federation.Workload) (any, error) { return w.ID(), nil }),
			"trust_domain": field(cel.StringType, func(w *federation.Workload) (any, error) { return w.TrustDomain(), nil }),
			"issuer":       field(cel.StringType, func(w *federation.Workload) (any, error) { return w.Issuer(), nil }),
		}
		out[s.object(role)] = object
		schema, ok := schemas[s]
		if !ok {
			continue
		}
		object["attr"] = field(types.NewObjectType(s.attributes(role)), func(w *federation.Workload) (any, error) { return w, nil })
		attributes := map[string]*types.FieldType{}
		for _, a := range schema {
			attributes[a.Name] = field(celType(a.Type), func(w *federation.Workload) (any, error) {
				v, ok := w.Attribute(a.Name)
				if !ok {
					return nil, errNotThere
				}
				return v.Any(), nil
			})
		}
		out[s.attributes(role)] = attributes
	}
	return out
}

// field is a field that is read from a *T.
func field[T any](typ *types.Type, get func(*T) (any, error)) *types.FieldType {
	return &types.FieldType{
		Type: typ,
		IsSet: func(object any) bool {
			t, ok := object.(*T)
			if !ok {
				return false
			}
			_, err := get(t)
			return err == nil
		},
		GetFrom: func(object any) (any, error) {
			t, ok := object.(*T)
			if !ok {
				return nil, errObject
			}
			return get(t)
		},
	}
}

func celType(t federation.Type) *types.Type {
	switch t {
	case federation.TypeStrings:
		return cel.ListType(cel.StringType)
	case federation.TypeBool:
		return cel.BoolType
	case federation.TypeInt:
		return cel.IntType
	default:
		return cel.StringType
	}
}

// plain is an address as people write it in a range: IPv4 in IPv6 is IPv4, and no zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// newView returns what a condition sees of f, with the scopes that a grant would have.
func newView(f Facts, who federation.Workload, t *Target, scopes []string) *view {
	return &view{workload: who, actor: f.Actor, target: t, scopes: slices.Clip(scopes), time: f.Time.Round(0).In(time.UTC), address: f.Address}
}
