package sts

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/sallyport-sts/sallyport/brokers"
	"github.com/sallyport-sts/sallyport/federation/policy"
	"github.com/sallyport-sts/sallyport/federation/secret"
)

// Request is one attempt as it arrived: the form of a POST to the token endpoint and where it came from.
type Request struct {
	Form          url.Values
	Authorization bool       // an Authorization header was present
	Remote        netip.Addr // the peer of the connection, never a header
	Err           error      // why there is no form
}

// request is a well-formed token exchange request (RFC 8693 section 2.1). Nothing in it is believed yet.
type request struct {
	subjectToken     secret.Value
	subjectTokenType oidc.TokenType
	actorToken       secret.Value // the zero Value when nobody acts for the subject
	actorTokenType   oidc.TokenType
	remote           netip.Addr
	requestedType    oidc.TokenType // "" when the caller leaves the choice to us
	want             policy.Want
	form             url.Values // for what only some brokers take
}

// parse checks shape only.
func parse(in Request) (request, error) {
	if in.Err != nil {
		return request{}, in.Err
	}
	p := params{form: in.Form}
	grantType := p.single("grant_type")
	out := request{
		subjectToken:     secret.New(p.single("subject_token")),
		subjectTokenType: oidc.TokenType(p.single("subject_token_type")),
		actorToken:       secret.New(p.single("actor_token")),
		actorTokenType:   oidc.TokenType(p.single("actor_token_type")),
		remote:           in.Remote,
		form:             in.Form,
		requestedType:    oidc.TokenType(p.single("requested_token_type")),
		want: policy.Want{
			Audiences: repeated(in.Form, "audience"),
			Resources: repeated(in.Form, "resource"),
		},
	}
	scope := p.single("scope")
	secrets := p.single("client_secret") + p.single("client_assertion") + p.single("client_assertion_type")
	p.single("client_id")
	if p.err != nil {
		return request{}, p.err
	}
	switch {
	case grantType == "":
		return request{}, fmt.Errorf("%w: grant_type is missing", ErrForm)
	case oidc.GrantType(grantType) != oidc.GrantTypeTokenExchange:
		return request{}, ErrGrantType
	case in.Authorization || secrets != "":
		// No client is known here: credentials that are not checked must not look as if they were.
		return request{}, ErrClient
	case out.subjectToken.IsZero():
		return request{}, fmt.Errorf("%w: subject_token is missing", ErrForm)
	case out.subjectTokenType == "":
		return request{}, fmt.Errorf("%w: subject_token_type is missing", ErrForm)
	case !inputTokenTypes[out.subjectTokenType]:
		return request{}, fmt.Errorf("%w: subject_token_type is not supported", ErrForm)
	case out.requestedType != "" && !requestable(out.requestedType):
		return request{}, fmt.Errorf("%w: requested_token_type is not supported", ErrForm)
	case out.actorToken.IsZero() != (out.actorTokenType == ""):
		return request{}, fmt.Errorf("%w: actor_token and actor_token_type come together", ErrForm)
	case out.actorTokenType != "" && !inputTokenTypes[out.actorTokenType]:
		return request{}, fmt.Errorf("%w: actor_token_type is not supported", ErrForm)
	}
	var err error
	if out.want.Scopes, err = scopes(scope); err != nil {
		return request{}, err
	}
	for _, r := range out.want.Resources {
		if !policy.ValidResource(r) {
			return request{}, ErrResourceSyntax
		}
	}
	return out, nil
}

// scopes splits a scope parameter (RFC 6749 section 3.3). A word that comes twice counts once: it is a set, and
// a caller must not make the token longer by saying it often.
func scopes(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	var out []string
	seen := map[string]bool{}
	for word := range strings.SplitSeq(s, " ") {
		if !policy.ValidScope(word) {
			return nil, ErrScopeSyntax
		}
		if !seen[word] {
			seen[word] = true
			out = append(out, word)
		}
	}
	return out, nil
}

// The declared type picks the validator; there is no sniffing (RFC 8693 section 3).
var (
	inputTokenTypes = map[oidc.TokenType]bool{
		oidc.JWTTokenType:    true, // a platform's token, or one of ours
		oidc.IDTokenType:     true, // a platform's token
		oidc.AccessTokenType: true, // one of ours (RFC 8693 section 3: issued by this server)
	}
)

// requestable: which of these a target has is seen when the target is granted, and not before.
func requestable(t oidc.TokenType) bool {
	return t == oidc.JWTTokenType || t == oidc.AccessTokenType || strings.HasPrefix(string(t), brokers.TypePrefix)
}

// choose adds to the order what the caller chose: the form of the credential, and the parameters that its broker takes.
func (r request) choose(b brokers.Broker, o brokers.Order) (brokers.Order, error) {
	if want := string(r.requestedType); want != "" {
		f, ok := b.(brokers.Former)
		if !ok || !slices.Contains(f.Forms(), want) {
			return o, fmt.Errorf("%w: requested_token_type is none that target %s has", ErrForm, o.Grant().Target())
		}
		o = o.WithForm(want)
	}
	t, ok := b.(brokers.Taker)
	if !ok {
		return o, nil
	}
	input := map[string]string{}
	for _, name := range t.Parameters() {
		v, err := single(r.form, name)
		if err != nil {
			return o, err
		}
		input[name] = v
	}
	return o.WithInput(input), nil
}

// params reads single parameters and keeps the first error.
type params struct {
	form url.Values
	err  error
}

func (p *params) single(name string) string {
	v, err := single(p.form, name)
	if p.err == nil {
		p.err = err
	}
	return v
}
